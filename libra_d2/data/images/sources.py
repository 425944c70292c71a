"""Find the images of command line inputs: files, folders, patterns, lists, videos, cameras."""

import glob
import logging
import math
import os
import re
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Iterable, Iterator, List, Optional, Sequence, Set, Union

import numpy as np

from ...errors import UserError
from ...utils.extras import import_opencv
from ...utils.files import file_stamp
from .folders import images_of_folder
from .formats import why_no_video
from .names import locate_images, moved_images, say_moved
from .reader import IMAGE_SUFFIXES, VIDEO_SUFFIXES, read_image

logger = logging.getLogger(__name__)

JPEG_SUFFIXES = (".jpg", ".jpeg")
LIST_SUFFIX = ".txt"


@dataclass(frozen=True)
class ImageItem:
    """An image. `key` is its name in the results, `name` the path of its annotated copy."""

    key: str
    name: str
    stamp: Sequence[int] = ()  # changes if the file changes
    video: Optional["Video"] = None
    image: Optional[np.ndarray] = field(default=None, repr=False)  # of a frame, BGR
    error: str = ""
    time: Optional[float] = None  # of a frame, in seconds

    def read(self, format: str) -> np.ndarray:
        """
        Read the image.

        Args:
            format: "RGB" or "BGR".

        Returns:
            (H, W, 3) uint8.

        Raises:
            ValueError: The image cannot be read. The message is one line.
        """
        if self.error:
            raise ValueError(self.error)
        if self.image is None:
            return read_image(self.key, format)
        return np.ascontiguousarray(self.image[:, :, ::-1]) if format == "RGB" else self.image


@dataclass
class Video:
    """A video file, or a camera with a number. `rate` is known after :meth:`items` has begun."""

    path: str
    name: str
    camera: Optional[int] = None
    rate: float = 0.0  # frames per second

    @property
    def stamp(self) -> List[int]:
        return [] if self.camera is not None else file_stamp(self.path)

    def items(self, max_frames: int) -> Iterator[ImageItem]:
        """Yield the frames as `<path>#0`, `<path>#1`, ..., with their presentation times."""
        cv2 = import_opencv("videos and cameras")
        stamp = self.stamp
        reason = "" if self.camera is not None else why_no_video(self.path)
        if reason:
            yield ImageItem(self.path, self.name, error=reason)
            return
        capture = cv2.VideoCapture(self.path if self.camera is None else self.camera)
        try:
            rate = capture.get(cv2.CAP_PROP_FPS)
            self.rate = rate if math.isfinite(rate) and rate > 0 else 25.0
            index, at, start = 0, None, time.monotonic()
            while (not max_frames or index < max_frames) and capture.grab():
                key = f"{self.path}#{index}"
                good, image = capture.retrieve()
                error = "" if good else "the frame cannot be decoded"
                if self.camera is None:
                    at = _next_time(at, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, self.rate)
                else:
                    at = time.monotonic() - start
                yield ImageItem(key, self.name, stamp, self, image, error, at)
                index += 1
            if not index:
                yield ImageItem(self.path, self.name, error="no frame can be read")
        finally:
            capture.release()

    def num_frames(self) -> int:
        """Return the number of frames that the file gives, which may be wrong; 0 for a camera."""
        cv2 = import_opencv("videos and cameras")
        if self.camera is not None or why_no_video(self.path):
            return 0
        capture = cv2.VideoCapture(self.path)
        try:
            return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        finally:
            capture.release()


def _next_time(last: Optional[float], stated: float, rate: float) -> float:
    """Return the time of a frame: `stated`, unless it is not later than that of the last frame."""
    if last is None:
        return stated if math.isfinite(stated) and stated >= 0 else 0.0
    return stated if math.isfinite(stated) and stated > last else last + 1 / rate


def find_images(
    inputs: Sequence[str], *, recursive: bool = False, stdin: Optional[Iterable[str]] = None
) -> List[Union[ImageItem, Video]]:
    """
    Find the images and videos that the inputs of a command name.

    Args:
        inputs: each one of
            - the path of an image or a video,
            - a folder, whose images are used in the order of their names. Files that look like
              images or videos but are not used get an `error`,
            - a pattern with `*`,
            - a list of paths, named `.txt`. The paths are relative to the list and resolved like
              names in annotations,
            - `camera:0`, or
            - `-` for a list on standard input.
        recursive: whether to include subfolders. Links to folders are not followed.
        stdin: lines to use instead of standard input.

    Returns:
        The images and videos in the order of the inputs, without duplicates. Each has a `name` of
        its own. Files in lists may be missing.

    Raises:
        UserError: An input does not exist, or a folder, pattern or list is empty.
    """
    if not inputs:
        raise UserError(
            "name at least one image, folder, list, video or camera:0, or - for standard input"
        )
    found: List[Union[ImageItem, Video]] = []
    for text in inputs:
        found += _of_input(text, recursive, stdin)
    seen: Set[str] = set()
    names: Set[str] = set()
    ret = []
    for item in found:
        path = item.key if isinstance(item, ImageItem) else item.path
        place = os.path.abspath(path)
        if place in seen:
            continue
        seen.add(place)
        ret.append(_with_own_name(item, names))
    return ret


def _of_input(text: str, recursive: bool, stdin) -> List[Union[ImageItem, Video]]:
    camera = re.fullmatch(r"camera:(\d+)", text)
    if camera:
        return [Video(text, f"camera_{camera[1]}.mp4", int(camera[1]))]
    if text == "-":
        return _of_list("standard input", sys.stdin.buffer.read() if stdin is None else stdin, ".")
    if os.path.isdir(text):
        return _of_folder(text, recursive)
    if not os.path.lexists(text):
        paths = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []
        if not paths:
            what = "matches no file" if glob.has_magic(text) else "does not exist"
            raise UserError(f"input {text} {what}. Name images, folders, lists, videos or camera:0")
        return [item for path in paths for item in _of_path(path, os.path.basename(path))]
    if text.lower().endswith(LIST_SUFFIX):
        try:
            with open(text, "rb") as f:
                content = f.read()
        except OSError as e:
            raise UserError(f"list {text} cannot be read: {e.strerror}") from None
        return _of_list(f"list {text}", content, os.path.dirname(text))
    return _of_path(text, os.path.basename(text))


def _of_folder(folder: str, recursive: bool) -> List[Union[ImageItem, Video]]:
    ret: List[Union[ImageItem, Video]] = []
    for found in images_of_folder(folder, recursive=recursive):
        name = os.path.relpath(found.path, folder)
        ret.append(ImageItem(found.path, name, file_stamp(found.path), error=found.left_out))
    if not ret:
        more = "" if recursive else ". Use --recursive to include subfolders"
        raise UserError(f"folder {folder} has no images ({' '.join(IMAGE_SUFFIXES)}){more}")
    return ret


def _of_list(what: str, content, folder: str) -> List[Union[ImageItem, Video]]:
    """Paths are separated by line breaks, or by NULs to allow for names with line breaks."""
    if isinstance(content, bytes):
        separator = b"\0" if b"\0" in content else b"\n"
        content = [os.fsdecode(line.rstrip(b"\r")) for line in content.split(separator)]
    root = "" if folder in ("", ".") else folder
    names = [p for p in content if p]
    if not names:
        raise UserError(f"{what} is empty. It must have the path of an image on each line")
    found = locate_images(names, root)
    say_moved(logger, what, moved_images(found, root), len(found))
    paths = [found[name] for name in names]
    return [item for path in paths for item in _of_path(path, os.path.basename(path))]


def _of_path(path: str, name: str) -> List[Union[ImageItem, Video]]:
    if name.lower().endswith(VIDEO_SUFFIXES):
        return [Video(path, name)]
    return [ImageItem(path, name or path, file_stamp(path))]


def _with_own_name(item, names: set):
    """Give an item a unique name for its annotated copy, which is a JPEG, PNG or MP4 file."""
    base, suffix = os.path.splitext(item.name)
    if isinstance(item, Video):
        suffix = ".mp4"
    elif suffix.lower() not in (*JPEG_SUFFIXES, ".png"):
        base, suffix = item.name, ".png"
    name, number = base + suffix, 2
    while name in names:
        name, number = f"{base}_{number}{suffix}", number + 1
    names.add(name)
    if name == item.name:
        return item
    if isinstance(item, ImageItem):
        return replace(item, name=name)
    return Video(item.path, name, item.camera)
