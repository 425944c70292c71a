"""The images of the report, small enough to be embedded."""

import base64
import io
from typing import Any, Dict, Tuple

from PIL import Image

from ...data.images.reader import read_image
from ...evaluation.analysis.results import ImageResult
from ...utils.local_paths import is_inside

MAX_SIDE = 800  # pixels of an embedded picture
_QUALITY = 80  # of its JPEG


class Pictures:
    """Each image is embedded once, however often it is shown."""

    def __init__(self, root: str = ""):
        """
        Args:
            root: folder outside of which no image is taken; "" for none.
        """
        self.root = root
        self.outside: Dict[str, str] = {}  # file name, by image id, of those left out
        self.by_key: Dict[str, str] = {}  # image id -> data URI
        self._read: Dict[str, Tuple[Tuple[int, int], str]] = {}

    def frame(self, image: ImageResult) -> Dict[str, Any]:
        """
        Args:
            image: an entry of the analysis' `images`.

        Returns:
            What report.js draws: boxes in the coordinates of `width` and `height`, the key of the
            picture, "" if there is none, and a `note` that says why.
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
            note = f"the picture is {size[0]} x {size[1]}, its annotations say {width} x {height}"
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
            note = "the image lies outside of the image folder, and so is left out"
            return (0, 0), "", note
        return _embedded(path)


def _embedded(path: str) -> Tuple[Tuple[int, int], str, str]:
    """Width and height, data URI and note."""
    if not path:
        return (0, 0), "", "the image is not at hand"
    try:
        image = Image.fromarray(read_image(path, format="RGB"))
    except ValueError as e:
        return (0, 0), "", f"the image cannot be read: {e}"
    size = image.size
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=_QUALITY, optimize=True)
    encoded = base64.b64encode(content.getvalue()).decode()
    return size, f"data:image/jpeg;base64,{encoded}", ""
