"""
Videos that browsers play.

With PyAV (`pip install libra_d2[video]`) they are H.264, and each frame is shown at its own time.
OpenCV's wheels have no encoder for H.264: without PyAV, VP9 is written at a constant rate, or
MPEG-4 where OpenCV has no VP9.
"""

import functools
import importlib.util
from fractions import Fraction
from typing import Any, Dict, Optional, Tuple

import numpy as np

MAX_RATE = 1000  # frames a second: what players and encoders take
_TICKS = 90_000  # a second, of H.264
_LONGEST_GAP = 60  # seconds between two frames; broken files have gaps of years


class VideoWriter:
    """
    Writes frames of one size to an MP4 file. It is a video only after :meth:`close`.

    Attributes:
        num_frames: so many were given.
        note: after :meth:`close`, how the times of the frames differ from those of the source; ""
            if they do not.
    """

    def __init__(self, path: str, rate: float, size: Tuple[int, int]):
        """
        Args:
            path: file to write; its name ends in ".mp4".
            rate: frames a second, above 0. Above `MAX_RATE`, the video is slower than its source.
            size: width and height in pixels.

        Raises:
            RuntimeError: there is no encoder that takes this.
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
            time: in seconds, from any origin; None: as the rate says.
        """
        if self.num_frames:
            gap = self._seconds if time is None else time - self._last
            seconds = min(max(gap, 1 / MAX_RATE), _LONGEST_GAP)
            if seconds != gap:
                self.note = f"gaps of {gap:.3g} s between its frames became {seconds:g} s"
            self._file.advance(seconds)
            self._seconds = seconds
        self._last = self._last if time is None else time
        self._file.add(frame)
        self.num_frames += 1

    def close(self) -> None:
        """
        Raises:
            RuntimeError: the file does not hold the frames, as the disk was full.
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
        self._stream.pix_fmt = "yuv420p"  # all that browsers take; its sides are even
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
            # The encoder says 1 / rate; the muxer takes it for the last frame.
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
        raise RuntimeError(f"OpenCV has no encoder for a video of {size[0]}x{size[1]}")

    def add(self, frame: np.ndarray) -> None:
        self._frame = np.ascontiguousarray(frame[:, :, ::-1])

    def advance(self, seconds: float) -> None:
        self._time += seconds
        count = max(1, round(self._time * self._rate) - self._written)
        if abs(seconds * self._rate - 1) > 0.1:
            self.note = (
                f"its frames come at times that vary; the copy has {self._rate:.3g} a second and "
                "keeps the length, as far as repeated frames can"
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
                raise RuntimeError("the video was cut off while it was written")
        finally:
            written.release()
