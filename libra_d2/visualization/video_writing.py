"""
Write videos that browsers can play.

With PyAV (`pip install libra_d2[video]`), videos are encoded as H.264, and each frame is shown at
its own time. OpenCV's wheels have no H.264 encoder. Without PyAV, videos are therefore encoded as
VP9 with a constant frame rate, or as MPEG-4 if OpenCV has no VP9 encoder.
"""

import functools
import importlib.util
from fractions import Fraction
from typing import Any, Dict, Optional, Tuple

import numpy as np

MAX_RATE = 1000  # frames per second that players and encoders support
_TICKS = 90_000  # per second, the unit of time of H.264
_LONGEST_GAP = 60  # seconds between two frames; broken files have gaps of years


class VideoWriter:
    """
    Writes frames of one size to an MP4 file, which can be played after :meth:`close`.

    Attributes:
        num_frames: number of frames given to :meth:`write`.
        note: after :meth:`close`, a text that says how the times of the frames differ from those
            of the source, or "" if they are the same.
    """

    def __init__(self, path: str, rate: float, size: Tuple[int, int]):
        """
        Args:
            path: file to write; its name ends in ".mp4".
            rate: frames per second, above 0. Above `MAX_RATE`, the video plays slower than its
                source.
            size: width and height in pixels.

        Raises:
            RuntimeError: no encoder supports this size and rate.
        """
        self.size, self.num_frames, self.note = size, 0, ""
        rate = min(rate, MAX_RATE)
        self._seconds = 1 / rate  # from the last frame to the next, or to the end
        self._last = 0.0  # time of the last frame in the source
        self._file = _H264(path, rate, size) if has_h264() else _Constant(path, rate, size)

    def write(self, frame: np.ndarray, time: Optional[float] = None) -> None:
        """
        Args:
            frame: (H, W, 3) uint8, RGB, of the size of the video.
            time: time of the frame in seconds, from any origin. If None, the frame follows the last
                one at the frame rate.
        """
        if self.num_frames:
            gap = self._seconds if time is None else time - self._last
            seconds = min(max(gap, 1 / MAX_RATE), _LONGEST_GAP)
            if seconds != gap:
                self.note = (
                    f"gaps between frames were limited to {1 / MAX_RATE:g} to {_LONGEST_GAP} s, "
                    f"such as one of {gap:.3g} s"
                )
            self._file.advance(seconds)
            self._seconds = seconds
        self._last = self._last if time is None else time
        self._file.add(frame)
        self.num_frames += 1

    def close(self) -> None:
        """
        Finish the file.

        Raises:
            RuntimeError: frames are missing in the file, for example because the disk is full.
        """
        if self.num_frames:
            self._file.advance(self._seconds)
        self._file.close()
        self.note = self.note or self._file.note


@functools.cache
def has_h264() -> bool:
    if importlib.util.find_spec("av") is None:
        return False
    import av

    return "libx264" in av.codecs_available


class _H264:
    note = ""

    def __init__(self, path: str, rate: float, size: Tuple[int, int]):
        import av

        self._av = av
        self._file = av.open(path, "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._file.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        self._stream.width, self._stream.height = (side + side % 2 for side in size)
        self._stream.pix_fmt = "yuv420p"  # the only format that all browsers play; needs even sides
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._stream.options = {"preset": "veryfast", "crf": "23", "bf": "0"}
        self._frame: Any = None  # an av.VideoFrame
        self._time = 0.0
        self._durations: Dict[int, int] = {}  # in ticks, by the time of the frame

    def add(self, frame: np.ndarray) -> None:
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")

    def advance(self, seconds: float) -> None:
        start, self._time = self._time, self._time + seconds
        self._frame.time_base = Fraction(1, _TICKS)
        self._frame.pts = round(start * _TICKS)
        self._durations[self._frame.pts] = round(self._time * _TICKS) - self._frame.pts
        self._encode(self._frame)

    def _encode(self, frame) -> None:
        for packet in self._stream.encode(frame):
            # The encoder sets 1 / rate, which the muxer would use for the last frame.
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._file.mux(packet)

    def close(self) -> None:
        if self._frame is not None:
            self._encode(None)
        self._file.close()


class _Constant:
    def __init__(self, path: str, rate: float, size: Tuple[int, int]):
        import cv2

        self._path, self._rate = path, rate
        self._frame: Any = None  # an array for OpenCV
        self._time, self._written = 0.0, 0
        self.note = ""
        for codec in ("vp09", "mp4v"):
            self._file = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*codec), rate, size)
            if self._file.isOpened():
                return
        raise RuntimeError(f"OpenCV has no encoder for a video of {size[0]}x{size[1]} pixels")

    def add(self, frame: np.ndarray) -> None:
        self._frame = np.ascontiguousarray(frame[:, :, ::-1])

    def advance(self, seconds: float) -> None:
        self._time += seconds
        count = max(1, round(self._time * self._rate) - self._written)
        if abs(seconds * self._rate - 1) > 0.1:
            self.note = (
                "the times between its frames vary. The copy has a constant rate of "
                f"{self._rate:.3g} frames per second, and repeats frames to keep the length"
            )
        for _ in range(count):
            self._file.write(self._frame)
        self._written += count

    def close(self) -> None:
        import cv2

        self._file.release()
        written = cv2.VideoCapture(self._path)
        try:
            if int(written.get(cv2.CAP_PROP_FRAME_COUNT)) < self._written:
                raise RuntimeError(
                    "the video was cut off while it was written. The disk may be full"
                )
        finally:
            written.release()
