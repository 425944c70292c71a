"""Images of many kinds, each with the pixels that every reader of it must see."""

import io
from dataclasses import dataclass
from typing import Dict, Tuple

import cv2
import numpy as np
from detectron2.data.detection_utils import read_image as detectron2_read_image
from PIL import Image, features

from ...inference.small_detector import blots

# Long enough that pictures of it are not enlarged; the sides differ, to tell turned ones.
SIZE = (90, 480)
PICTURE = Image.fromarray(blots(0, SIZE))
GREY = np.asarray(PICTURE.convert("L"))


@dataclass(frozen=True)
class Kind:
    content: bytes
    pixels: np.ndarray  # (H, W, 3) uint8, RGB


def encoded(image, format, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def exif(orientation) -> bytes:
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What https://www.exiv2.org/tags.html says of each orientation, by NumPy alone."""
    return {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }[orientation](pixels)


def with_alpha() -> Image.Image:
    image = PICTURE.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def of_8_bits() -> Dict[str, bytes]:
    """Kinds that Detectron2 reads as they look."""
    png16 = cv2.imencode(".png", blots(1, SIZE).astype(np.uint16) * 257)[1].tobytes()
    kinds = {
        "plain.jpg": encoded(PICTURE, "JPEG"),
        "progressive.jpg": encoded(PICTURE, "JPEG", progressive=True),
        "cmyk.jpg": encoded(PICTURE.convert("CMYK"), "JPEG"),
        "grey.jpg": encoded(PICTURE.convert("L"), "JPEG"),
        **{f"exif{i}.jpg": encoded(PICTURE, "JPEG", exif=exif(i)) for i in range(2, 9)},
        "upper.JPG": encoded(PICTURE, "JPEG"),
        "phone.jfif": encoded(PICTURE, "JPEG"),
        "plain_png.png": encoded(PICTURE, "PNG"),
        "palette.png": encoded(PICTURE.convert("P"), "PNG"),
        "bilevel.png": encoded(PICTURE.convert("1"), "PNG"),
        "rgba.png": encoded(with_alpha(), "PNG"),
        "la.png": encoded(with_alpha().convert("LA"), "PNG"),
        "grey_png.png": encoded(PICTURE.convert("L"), "PNG"),
        "exif6_png.png": encoded(PICTURE, "PNG", exif=exif(6)),
        "rgb_of_16_bits.png": png16,
        "webp.webp": encoded(PICTURE, "WEBP"),
        "exif8_webp.webp": encoded(PICTURE, "WEBP", exif=exif(8)),
        "frames.gif": encoded(PICTURE, "GIF", save_all=True, append_images=[with_alpha()]),
        "bmp.bmp": encoded(PICTURE, "BMP"),
        "ppm.ppm": encoded(PICTURE, "PPM"),
        "jp2.jp2": encoded(PICTURE, "JPEG2000"),
        "lzw.tiff": encoded(PICTURE, "TIFF", compression="tiff_lzw"),
        "pages.tif": encoded(PICTURE, "TIFF", save_all=True, append_images=[PICTURE.rotate(90)]),
        "bigtiff.tif": encoded(PICTURE, "TIFF", big_tiff=True),
        "camera.mpo": encoded(PICTURE, "MPO", save_all=True, append_images=[PICTURE.rotate(180)]),
        "png_in_truth.jpg": encoded(PICTURE, "PNG"),
        "jpeg_in_truth.png": encoded(PICTURE, "JPEG"),
    }
    if features.check("avif"):
        kinds["avif.avif"] = encoded(PICTURE, "AVIF")
        kinds["exif6_avif.avif"] = encoded(PICTURE, "AVIF", exif=exif(6))
    return kinds


def of_more_bits() -> Dict[str, Tuple[bytes, np.ndarray]]:
    """Kinds that Detectron2 clips or turns twice, with the grey values they must have."""
    deep, floats = GREY.astype(np.uint16) * 257, GREY.astype(np.float32)
    signed = GREY.astype(np.int32) * 1000 - 5000
    span = GREY.max() - GREY.min()
    stretched = np.rint((GREY.astype(float) - GREY.min()) * 255 / span).astype(np.uint8)
    as_tiff = {
        "tiff_of_16_bits.tif": (deep, GREY),
        "floats_to_1.tif": (floats / 255, GREY),
        "floats_to_255.tif": (floats, GREY),
        "floats.tif": (floats * 7 - 300, stretched),
        "integers.tif": (signed, stretched),
    }
    return {
        "grey_of_16_bits.png": (encoded(Image.fromarray(deep), "PNG"), GREY),
        "exif6_of_16_bits.png": (
            encoded(Image.fromarray(deep), "PNG", exif=exif(6)),
            turned(GREY, 6),
        ),
        "pgm_of_16_bits.pgm": (cv2.imencode(".pgm", deep)[1].tobytes(), GREY),
        **{n: (encoded(Image.fromarray(a), "TIFF"), grey) for n, (a, grey) in as_tiff.items()},
        **{
            f"exif{i}_tiff.tif": (
                encoded(Image.fromarray(GREY), "TIFF", exif=exif(i)),
                turned(GREY, i),
            )
            for i in range(2, 9)
        },
        "exif8_of_16_bits.tif": (
            encoded(Image.fromarray(deep), "TIFF", exif=exif(8)),
            turned(GREY, 8),
        ),
    }


def all_kinds(folder) -> Dict[str, Kind]:
    """By file name; the files are in `folder` then."""
    kinds = {}
    for name, content in of_8_bits().items():
        (folder / name).write_bytes(content)
        kinds[name] = Kind(content, detectron2_read_image(str(folder / name), "RGB"))
    transparent = encoded(PICTURE.convert("P"), "PNG", transparency=bytes([0, 128]))
    kinds["transparent_palette.png"] = Kind(
        transparent, np.asarray(PICTURE.convert("P").convert("RGB"))
    )
    for name, (content, grey) in of_more_bits().items():
        kinds[name] = Kind(content, np.repeat(grey[:, :, None], 3, axis=2))
    for name, kind in kinds.items():
        (folder / name).write_bytes(kind.content)
    return kinds
