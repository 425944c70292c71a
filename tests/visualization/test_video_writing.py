"""Drawn videos: their codec, and when their frames are shown."""

import cv2
import numpy as np
import pytest

from libra_d2.utils.files import replacing
from libra_d2.visualization import video_writing
from libra_d2.visualization.video_writing import MAX_RATE, VideoWriter

TIMES = [0.0, 0.1, 0.2, 0.3, 0.7, 1.1, 1.5]  # the last frame lasts as long as the one before it


def frames(count, size=(64, 48)):
    return [np.full((size[1], size[0], 3), 20 + 10 * i, np.uint8) for i in range(count)]


def write(path, times, rate=10.0, size=(64, 48)):
    writer = VideoWriter(str(path), rate, size)
    for frame, time in zip(frames(len(times), size), times):
        writer.write(frame, time)
    writer.close()
    return writer


def played(path):
    """Codec, times, brightness of the frames, and length in seconds."""
    capture = cv2.VideoCapture(str(path))
    codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
    length = capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS)
    times, means = [], []
    while capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        means.append(capture.retrieve()[1].mean())
    return codec, times, means, length


def test_h264_shows_each_frame_at_its_time(tmp_path):
    assert video_writing.has_h264(), "PyAV, of the extra video, is not installed"
    writer = write(tmp_path / "v.mp4", TIMES)
    codec, times, means, length = played(tmp_path / "v.mp4")
    assert codec == b"h264" and writer.note == ""
    assert times == pytest.approx(TIMES, abs=1e-3)
    assert means == pytest.approx([20 + 10 * i for i in range(7)], abs=4)
    assert length == pytest.approx(1.9, abs=1e-3)


@pytest.mark.parametrize("size", [(64, 48), (97, 63)])
def test_without_h264_the_length_is_kept_and_varying_times_are_told(tmp_path, monkeypatch, size):
    monkeypatch.setattr(video_writing, "has_h264", lambda: False)
    even = write(tmp_path / "even.mp4", [0.1 * i for i in range(7)], size=size)
    codec, times, _, _ = played(tmp_path / "even.mp4")
    assert codec == b"VP90" and even.note == ""
    assert times == pytest.approx([0.1 * i for i in range(7)], abs=1e-3)
    uneven = write(tmp_path / "uneven.mp4", TIMES, size=size)
    assert "the times between its frames vary" in uneven.note
    assert played(tmp_path / "uneven.mp4")[3] == pytest.approx(1.9, abs=1e-3)


@pytest.mark.parametrize("has_h264", [True, False])
@pytest.mark.parametrize("times", [[0, 1e-5, 2e-5], [0, 1e9, 2e9]], ids=["close", "far"])
def test_rates_and_gaps_that_no_player_takes_are_bounded(tmp_path, monkeypatch, has_h264, times):
    monkeypatch.setattr(video_writing, "has_h264", lambda: has_h264)
    writer = write(tmp_path / "v.mp4", times, rate=1e5 if times[1] < 1 else 2)
    assert "gaps between frames were limited to 0.001 to 60 s" in writer.note
    _, shown, _, length = played(tmp_path / "v.mp4")
    assert len(shown) >= 3 and 2 / MAX_RATE <= length <= 200


@pytest.mark.parametrize("has_h264", [True, False])
def test_one_frame_and_odd_sides(tmp_path, monkeypatch, has_h264):
    monkeypatch.setattr(video_writing, "has_h264", lambda: has_h264)
    write(tmp_path / "v.mp4", [0.4], size=(31, 17))
    assert len(played(tmp_path / "v.mp4")[1]) == 1


def test_a_video_that_was_cut_off_is_an_error(tmp_path, monkeypatch):
    """OpenCV says nothing when the disk is full."""
    monkeypatch.setattr(video_writing, "has_h264", lambda: False)
    with (
        pytest.raises(RuntimeError, match="cut off"),
        replacing(tmp_path / "v.mp4", ".mp4") as part,
    ):
        writer = VideoWriter(part, 10.0, (64, 48))
        for i, frame in enumerate(frames(5)):
            writer.write(frame, i / 10)
        writer._file._file.release()
        with open(part, "r+b") as f:
            f.truncate(40)
        writer.close()
    assert list(tmp_path.iterdir()) == []
