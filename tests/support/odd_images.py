"""Images that readers treat differently, as files."""

import struct
import zlib

from PIL import Image

from ..data.images.image_kinds import encoded, exif
from ..inference.small_detector import blots

PICTURE = Image.fromarray(blots(0))


def png_of_size(width: int, height: int) -> bytes:
    """A few bytes that say they are a large picture."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )


def with_alpha() -> Image.Image:
    image = PICTURE.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


SAME_AS_DETECTRON2 = {
    "rgb.jpg": encoded(PICTURE, "JPEG"),
    "progressive.jpg": encoded(PICTURE, "JPEG", progressive=True),
    "grey.jpg": encoded(PICTURE.convert("L"), "JPEG"),
    "cmyk.jpg": encoded(PICTURE.convert("CMYK"), "JPEG"),
    **{f"exif{i}.jpg": encoded(PICTURE, "JPEG", exif=exif(i)) for i in (2, 3, 4, 5, 6, 7, 8, 99)},
    "rgb.png": encoded(PICTURE, "PNG"),
    "grey.png": encoded(PICTURE.convert("L"), "PNG"),
    "bilevel.png": encoded(PICTURE.convert("1"), "PNG"),
    "palette.png": encoded(PICTURE.convert("P"), "PNG"),
    "alpha.png": encoded(with_alpha(), "PNG"),
    "grey_alpha.png": encoded(with_alpha().convert("LA"), "PNG"),
    "frames.gif": encoded(PICTURE, "GIF", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
    "picture.webp": encoded(PICTURE, "WEBP"),
    "picture.bmp": encoded(PICTURE, "BMP"),
    "frames.tiff": encoded(PICTURE, "TIFF", save_all=True, append_images=[PICTURE.rotate(90)]),
    "lab.tiff": encoded(Image.new("LAB", (9, 9)), "TIFF"),
    "one_pixel.png": encoded(PICTURE.resize((1, 1)), "PNG"),
    "long.png": encoded(PICTURE.resize((20000, 2)), "PNG"),
    "png_in_truth.jpg": encoded(PICTURE, "PNG"),
    "na me\nwith ünïcode.png": encoded(PICTURE, "PNG"),
}


BAD = {
    "truncated.jpg": (encoded(PICTURE, "JPEG")[:900], "truncated|Truncated"),
    "truncated.png": (encoded(PICTURE, "PNG")[:900], "truncated"),
    "header.jpg": (
        encoded(PICTURE, "JPEG")[:30],
        "not an image of a supported format|[Tt]runcated",
    ),
    "empty.jpg": (b"", "the file is empty"),
    "text.png": (b"this is no picture\n" * 9, "not an image of a supported format"),
    "bomb.png": (png_of_size(60000, 60000), "at most 178956970 pixels"),
    "cut_at_once.png": (png_of_size(60, 60), "."),
}
