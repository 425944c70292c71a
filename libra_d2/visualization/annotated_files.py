"""Annotated copies of images and videos, in a folder."""

import contextlib
import errno
import os
from typing import Callable, Optional, Sequence

import numpy as np
from PIL import Image

from ..data.images.sources import JPEG_SUFFIXES, ImageItem, Video
from ..predictions.detections import Detections
from ..utils.files import replacing
from ..utils.messages import one_line, printable
from ..utils.system_errors import write_error
from .detection_pictures import draw_detections, save_picture
from .video_writing import VideoWriter, has_h264

# Errors of the disk or of the program's limits, which every other file would meet, too.
_OF_ALL_FILES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.EMFILE, errno.ENFILE),
)


class DrawnFiles:
    """
    The path of each is its `name` in the folder. Videos have the frames that could be read.

    Attributes:
        num_failed: images and videos that could not be drawn; `say` was told why.
    """

    def __init__(
        self,
        folder: str,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        *,
        score_threshold: float = 0.0,
        say: Callable[[str], None] = lambda line: None,
    ):
        """
        Args:
            score_threshold: weaker detections are not drawn.
            say: is called with each line that the user should see.
        """
        self.folder = folder
        self.class_names, self.category_ids = class_names, category_ids
        self.score_threshold, self.say = score_threshold, say
        self.num_failed = 0
        self._video: Optional[Video] = None  # the one that is written, or that failed
        self._writer: Optional[VideoWriter] = None
        self._whole = contextlib.ExitStack()
        self._told = False

    def add(self, item: ImageItem, image: np.ndarray, detections: Detections) -> None:
        """
        Draw an image. One that cannot be drawn is told of and left out.

        Args:
            image: (H, W, 3) uint8, RGB.

        Raises:
            WriteError: the disk is full or cannot be written to.
        """
        if item.video is not None and item.video is self._video and self._writer is None:
            return  # it has failed before
        if item.video is not self._video:
            self.close()
        try:
            shown = detections.above(self.score_threshold)
            drawn = draw_detections(image, shown, self.class_names, self.category_ids)
            if item.video is None:
                self._save(item.name, drawn)
            else:
                self._append(item, drawn)
        except Exception as e:
            self._failed(item.name, e)

    def _save(self, name: str, drawn: np.ndarray) -> None:
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        is_jpeg = name.lower().endswith(JPEG_SUFFIXES)
        options = {"format": "jpeg", "quality": 90} if is_jpeg else {"format": "png"}
        save_picture(Image.fromarray(drawn), path, **options)

    def _append(self, item: ImageItem, drawn: np.ndarray) -> None:
        import cv2

        assert item.video is not None
        if item.video is not self._video:
            self._open(item.video, drawn.shape[1::-1])
        assert self._writer is not None
        if drawn.shape[1::-1] != self._writer.size:  # a camera may change its size
            drawn = cv2.resize(drawn, self._writer.size)
        self._writer.write(drawn, item.time)

    def _open(self, video: Video, size: Sequence[int]) -> None:
        self._video = video
        path = os.path.join(self.folder, video.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        partial = self._whole.enter_context(replacing(path, suffix=".mp4"))
        self._writer = VideoWriter(partial, video.rate, (size[0], size[1]))
        if not has_h264() and not self._told:
            self._told = True
            self.say(
                "videos are written as VP9, at a constant rate; for H.264, which more browsers "
                "play: pip install libra_d2[video]"
            )

    def _failed(self, name: str, error: Exception) -> None:
        """
        Raises:
            WriteError: every other file would fail as well.
        """
        self._writer = None
        with contextlib.suppress(Exception):
            self._whole.__exit__(type(error), error, error.__traceback__)  # removes the part
        error = write_error(error) if isinstance(error, OSError) else error
        if isinstance(error, OSError) and error.errno in _OF_ALL_FILES:
            raise error
        self.num_failed += 1
        self.say(f"not drawn: {printable(os.path.join(self.folder, name))}: {one_line(error)}")

    def close(self) -> None:
        """
        Also of a video that ends early: it is whole up to there.

        Raises:
            WriteError: as of :meth:`add`.
        """
        video, writer, self._video, self._writer = self._video, self._writer, None, None
        if writer is None or video is None:
            return
        try:
            with self._whole:
                writer.close()
        except Exception as e:
            self._failed(video.name, e)
            return
        if writer.note:
            self.say(f"{printable(video.path)}: {writer.note}")
