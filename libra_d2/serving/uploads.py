"""Read the images of a request, and refuse what is not to be decoded."""

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import List, Optional, Tuple

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException

from ..data.images.reader import read_header
from ..data.slicing.geometry import slice_grid
from ..inference.slicing import Slicing
from ..utils.messages import shown
from .limits import Limits
from .parameters import Parameters

FIELD = "image"


@dataclass(frozen=True)
class Upload:
    """An image: its name, which is only a name in results, and the content of its file."""

    name: str
    content: bytes
    width: int
    height: int


async def read_uploads(
    request: Request, limits: Limits, parameters: Parameters, threads: Executor
) -> List[Upload]:
    """
    Read the images of a form. Their headers are read in one of `threads`.

    Raises:
        HTTPException: the form has other parts, or too many; or an image is not one, is too large,
            or has the name of another.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(
            415, f"send images as multipart/form-data, in fields that are named {FIELD!r}"
        )
    try:
        form = await request.form(max_files=limits.max_images, max_fields=limits.max_images)
    except StarletteHTTPException as e:
        if "Too many" in str(e.detail):
            raise HTTPException(
                413, f"a request must have at most {limits.max_images} images"
            ) from None
        raise
    found: List[Tuple[str, bytes]] = []
    for field, part in form.multi_items():
        if field != FIELD or not isinstance(part, UploadFile):
            what = "a file" if isinstance(part, UploadFile) else "a value"
            raise HTTPException(
                422,
                f"a form must have only files in the field {FIELD!r}, got {what} in "
                f"{shown(field)}. Options are parameters of the URL",
            )
        found.append((part.filename or "", await part.read()))
    await form.close()
    if not found:
        raise HTTPException(422, f"a form must have an image in the field {FIELD!r}")
    names = [name for name, _ in found]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise HTTPException(422, f"images must have different names, got {shown(twice)} twice")
    several = len(found) > 1
    loop = asyncio.get_running_loop()
    return [
        await loop.run_in_executor(
            threads, _checked, name, content, limits, parameters.slicing, several
        )
        for name, content in found
    ]


def _checked(
    name: str, content: bytes, limits: Limits, slicing: Optional[Slicing], several: bool
) -> Upload:
    """Read the header of an image. Nothing is decoded yet."""
    which = f"{shown(name)}: " if several else ""
    header = read_header(content)
    if header.error:
        status = 413 if "pixels, and has more" in header.error else 415
        raise HTTPException(status, f"{which}{header.error}")
    width, height = header.width, header.height
    if width * height > limits.max_pixels:
        raise HTTPException(
            413,
            f"{which}an image must have at most {limits.max_pixels} pixels, got {width}x{height}",
        )
    if slicing is not None:
        count = len(slice_grid(width, height, slicing.size, slicing.overlap))
        if count > limits.max_slices:
            raise HTTPException(
                413,
                f"{which}an image must have at most {limits.max_slices} slices, got {count}. Ask "
                "for larger ones",
            )
    return Upload(name, content, width, height)
