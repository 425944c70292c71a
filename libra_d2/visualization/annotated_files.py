"""Write annotated copies of images and videos into a folder."""

import contextlib
import errno
import os
from typing import Callable, Optional, Sequence, Union

import numpy as np
from PIL import Image

from ..data.images.sources import JPEG_SUFFIXES, ImageItem, Video
from ..predictions.detections import Detections
from ..utils.files import replacing
from ..utils.messages import one_line, printable
from ..utils.system_errors import write_error
from .detection_pictures import draw_detections, save_picture
from .video_writing import VideoWriter, has_h264

# Errors of the disk, or of the limits of the process, with which every other file would fail, too.
_OF_ALL_FILES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.EMFILE, errno.ENFILE),
)


class DrawnFiles:
    """
    Draws detections on images and on the frames of videos.

    Each file is written to its `name` in the folder. A video contains the frames that could be
    read.

    Attributes:
        num_failed: number of images and videos that could not be drawn. `say` is called with the
            reason of each.
    """

    def __init__(
        self,
        folder: str,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        *,
        score_threshold: Union[float, Sequence[float]] = 0.0,
        say: Callable[[str], None] = lambda line: None,
    ):
        """
        Args:
            score_threshold: detections with lower scores are not drawn. One number, or one for
                each class.
            say: function to call with each line that the user should see.
        """
        self.folder = folder
        self.class_names, self.category_ids = class_names, category_ids
        self.score_threshold, self.say = score_threshold, say
        self.num_failed = 0
        self._video: Optional[Video] = None  # the one being written, or the last that failed
        self._writer: Optional[VideoWriter] = None
        self._whole = contextlib.ExitStack()
        self._told = False

    def add(self, item: ImageItem, image: np.ndarray, detections: Detections) -> None:
        """
        Draw an image, or append a frame to its video.

        Frames of a video come one after the other. If an image or a video cannot be drawn, it is
        reported and left out.

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
        if drawn.shape[1::-1] != self._writer.size:  # the frame size may change in a video
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
                "videos are written as VP9 with a constant frame rate. For H.264, which more "
                "browsers play, run: pip install libra_d2[video]"
            )

    def _failed(self, name: str, error: Exception) -> None:
        """
        Report a file that cannot be drawn, and remove what was written of it.

        Raises:
            WriteError: every other file would fail, too.
        """
        self._writer = None
        with contextlib.suppress(Exception):
            # This removes the partial file.
            self._whole.__exit__(type(error), error, error.__traceback__)
        error = write_error(error) if isinstance(error, OSError) else error
        if isinstance(error, OSError) and error.errno in _OF_ALL_FILES:
            raise error
        self.num_failed += 1
        self.say(f"not drawn: {printable(os.path.join(self.folder, name))}: {one_line(error)}")

    def close(self) -> None:
        """
        Finish the current video, if there is one. If it ends early, it is complete up to there.

        Raises:
            WriteError: the disk is full or cannot be written to.
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
