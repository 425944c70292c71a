"""Annotated copies of images and videos, in a folder."""

import contextlib
import os
from typing import Optional, Sequence

import numpy as np
from PIL import Image

from ..errors import UserError
from ..files import replacing
from .detections import Detections, draw_detections
from .image_sources import JPEG_SUFFIXES, ImageItem, Video


class DrawnFiles:
    """
    The path of each is its `name` in the folder. Videos have the frames that could be read.
    """

    def __init__(self, folder: str, class_names: Sequence[str], category_ids: Sequence[int]):
        self.folder = folder
        self.class_names, self.category_ids = class_names, category_ids
        self._video: Optional[Video] = None
        self._writer, self._path, self._size = None, "", (0, 0)
        self._whole = contextlib.ExitStack()

    def add(self, item: ImageItem, image: np.ndarray, detections: Detections) -> None:
        """
        Args:
            image: (H, W, 3) uint8, RGB.

        Raises:
            UserError: the file cannot be written.
        """
        drawn = draw_detections(image, detections, self.class_names, self.category_ids)
        try:
            if item.video is None:
                self._save(item.name, drawn)
            else:
                self._append(item.video, drawn)
        except OSError as e:
            raise UserError(f"{self.folder}: {item.name} cannot be written: {e}") from None

    def _save(self, name: str, drawn: np.ndarray) -> None:
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path) as partial:
            if name.lower().endswith(JPEG_SUFFIXES):
                Image.fromarray(drawn).save(partial, format="jpeg", quality=90)
            else:
                Image.fromarray(drawn).save(partial, format="png")

    def _append(self, video: Video, drawn: np.ndarray) -> None:
        import cv2

        if video is not self._video:
            self.close()
            self._video, self._size = video, drawn.shape[1::-1]
            self._path = os.path.join(self.folder, video.name)
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            code = cv2.VideoWriter_fourcc(*"mp4v")
            partial = self._whole.enter_context(replacing(self._path, suffix=".mp4"))
            self._writer = cv2.VideoWriter(partial, code, video.rate or 25.0, self._size)
            if not self._writer.isOpened():
                raise OSError("OpenCV cannot write MP4 here")
        if drawn.shape[1::-1] != self._size:  # a camera may change its size
            drawn = cv2.resize(drawn, self._size)
        self._writer.write(np.ascontiguousarray(drawn[:, :, ::-1]))

    def close(self) -> None:
        """Also of a video that ends early: it is whole up to there."""
        if self._writer is not None:
            self._writer.release()
            self._writer = self._video = None
        self._whole.close()
