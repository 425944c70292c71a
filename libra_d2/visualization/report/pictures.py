"""Embed images into the report as small JPEGs."""

from typing import Any, Dict, Tuple

from PIL import Image

from ...data.images.reader import read_image
from ...evaluation.analysis.results import ImageResult
from ...utils.local_paths import is_inside
from ..pages import data_uri

MAX_SIDE = 800  # longest side of an embedded image, in pixels
_QUALITY = 80  # of the JPEG


class Pictures:
    """
    Reads and scales the images of a report. An image is embedded only once, even if it is shown
    more often.

    Attributes:
        outside: image id -> file name of the images outside of `root`, which are left out.
        by_key: image id as a string -> data URI.
    """

    def __init__(self, root: str = ""):
        """
        Args:
            root: images outside of this folder are left out. "" allows all images.
        """
        self.root = root
        self.outside: Dict[str, str] = {}
        self.by_key: Dict[str, str] = {}
        self._read: Dict[str, Tuple[Tuple[int, int], str]] = {}

    def frame(self, image: ImageResult) -> Dict[str, Any]:
        """
        Args:
            image: an entry of the analysis' `images`.

        Returns:
            The data that report.js draws: boxes in the coordinates of `width` and `height`, the
            key of the embedded image (`picture`), and a `note` about problems. `picture` is "" if
            the image cannot be shown; `note` then says why.
        """
        key = str(image.image_id)
        if key not in self._read:
            size, uri, note = self._embedded(image)
            self._read[key] = size, note
            if uri:
                self.by_key[key] = uri
        size, note = self._read[key]
        width, height = image.width or size[0], image.height or size[1]
        if size[0] and abs(width * size[1] - height * size[0]) > max(width, height, *size):
            note = f"the image is {size[0]} x {size[1]}, but its annotations say {width} x {height}"
        return {
            "name": image.file_name,
            "width": width or MAX_SIDE,
            "height": height or MAX_SIDE,
            "picture": key if key in self.by_key else "",
            "note": note,
            "objects": image.objects,
            "detections": image.detections,
        }

    def _embedded(self, image: ImageResult) -> Tuple[Tuple[int, int], str, str]:
        path = image.path
        if path and self.root and not is_inside(path, self.root):
            self.outside[str(image.image_id)] = image.file_name
            note = "the image is outside of the image folder and was left out"
            return (0, 0), "", note
        return _embedded(path)


def _embedded(path: str) -> Tuple[Tuple[int, int], str, str]:
    """Return the width and height, the data URI and a note."""
    if not path:
        return (0, 0), "", "the image is not available"
    try:
        image = Image.fromarray(read_image(path, format="RGB"))
    except ValueError as e:
        return (0, 0), "", f"the image cannot be read: {e}"
    size = image.size
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return size, data_uri(image, _QUALITY), ""
