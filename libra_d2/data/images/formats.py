"""
The supported image formats, and recognizing files by their name and first bytes.

Some of Pillow's decoders start programs (PostScript runs Ghostscript) or open other files. Only
formats in `FORMATS` are decoded, whatever the name of a file is.
"""

import functools
import os
import re
from typing import IO, Optional, Tuple

from PIL import Image

# Pillow's names. HEIF needs pillow-heif, and AVIF a Pillow that was built with it.
FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "GIF",
    "BMP",
    "DIB",
    "WEBP",
    "TIFF",
    "AVIF",
    "HEIF",
    "JPEG2000",
    "PPM",
)


@functools.cache
def readable_formats() -> Tuple[str, ...]:
    """Return those of `FORMATS` that the installed Pillow can decode."""
    Image.init()
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _image_suffixes() -> Tuple[str, ...]:
    """Return the suffixes of the readable formats, the most common ones first."""
    formats = (*readable_formats(), "MPO")  # which Pillow opens as JPEG
    usual = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
    known = {s for s, name in Image.registered_extensions().items() if name in formats}
    return (*(s for s in usual if s in known), *sorted(known.difference(usual)))


# In lower case, with the dot.
IMAGE_SUFFIXES = _image_suffixes()
VIDEO_SUFFIXES = tuple(
    ".mp4 .avi .mov .mkv .webm .m4v .mpg .mpeg .wmv .flv .3gp .ogv .mts .m2ts".split()
)
# Images in formats that are not supported.
_OTHER_IMAGE_SUFFIXES = tuple(
    ".heic .heif .hif .avif .jxl .jp2 .psd .psb .svg .svgz .eps .ps .ai .wmf .emf .dng .cr2 .cr3 "
    ".nef .arw .orf .rw2 .raf .exr .hdr .ico .cur .tga .pcx .qoi .dds .xcf .dcm".split()
)
# There are often many of these files next to images, so they are not opened to recognize them.
_TEXT_SUFFIXES = tuple(".txt .json .xml .csv .yaml .yml .md .html .log .py .journal".split())

_VIDEO = "it is a video. Videos are used only if they are named themselves"
_HEIF = "install pillow-heif by `pip install libra_d2[heif]`"
_AVIF = "install Pillow 11.3 or later, whose wheels read it"
_CONVERT = ". Convert it to PNG or JPEG"
_HINTS = {".heic": _HEIF, ".heif": _HEIF, ".hif": _HEIF, ".avif": _AVIF}

_MAGIC = (
    (b"\xff\xd8\xff", "image", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "image", "PNG"),
    (b"GIF8", "image", "GIF"),
    (b"II*\0", "image", "TIFF"),
    (b"MM\0*", "image", "TIFF"),
    (b"II+\0", "image", "TIFF"),
    (b"MM\0+", "image", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n", "image", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "image", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n", "image", "JPEG XL"),
    (b"%!PS", "image", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "image", "PostScript"),
    (b"8BPS", "image", "Photoshop"),
    (b"\xd7\xcd\xc6\x9a", "image", "Windows metafile"),
    (b"v/1\x01", "image", "OpenEXR"),
    (b"#?RADIANCE", "image", "Radiance HDR"),
    (b"qoif", "image", "QOI"),
    (b"\x1aE\xdf\xa3", "video", "Matroska or WebM"),
    (b"0&\xb2u\x8ef\xcf\x11", "video", "Windows Media"),
    (b"\0\0\x01\xba", "video", "MPEG"),
    (b"\0\0\x01\xb3", "video", "MPEG"),
    (b"FLV\x01", "video", "Flash video"),
    (b"OggS", "video", "Ogg"),
)
# Brands of files that, like MP4, begin with an `ftyp` box.
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_QUICKTIME_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip")
HEAD = 512  # number of bytes that `kind_of` needs


def kind_of(head: bytes) -> Tuple[str, str]:
    """
    Recognize images and videos by their first bytes.

    Args:
        head: the first `HEAD` bytes of a file, or the whole file if it is shorter.

    Returns:
        "image", "video" or "" for other files, and the name of the format.
    """
    for magic, kind, name in _MAGIC:
        if head.startswith(magic):
            return kind, name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image", "WebP"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "video", "AVI"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "image", "BMP"
    if head[:4] == b"\x01\0\0\0" and head[40:44] == b" EMF":
        return "image", "Windows metafile"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return "image", "AVIF"
        if brand in _HEIF_BRANDS:
            return "image", "HEIF"
        if brand == b"crx ":
            return "image", "raw data of a camera"
        return ("", "") if brand.startswith(b"M4A") else ("video", "MP4")
    if head[4:8] in _QUICKTIME_BOXES:
        return "video", "QuickTime"
    if head[:1] == b"G" and head[188:189] == b"G" and head[376:377] == b"G":
        return "video", "MPEG transport stream"
    return "", ""


def why_no_video(path: str) -> str:
    """
    Return one line that says why a file is not a video, or "" if its first bytes are those of one.

    This is checked before OpenCV opens the file, because OpenCV also follows playlists, which can
    name other files and URLs.
    """
    if not os.path.isfile(path):
        return "it is not a regular file"
    try:
        with open(path, "rb") as f:
            kind, _ = kind_of(f.read(HEAD))
    except OSError as e:
        return e.strerror or str(e)
    return "" if kind == "video" else "not a video of a supported format"


def why_not_read(head: bytes) -> str:
    """Return one line that says why a file with these first bytes has none of `FORMATS`."""
    kind, name = kind_of(head)
    if name == "HEIF":
        return f"HEIF is not supported here. To read it, {_HEIF}"
    if name == "AVIF":
        return f"AVIF is not supported here. To read it, {_AVIF}"
    if kind == "video":
        return f"it is a video ({name}), not an image"
    if kind == "image" and name.upper().replace(" ", "") not in FORMATS:
        return f"its format, {name}, is not supported. Convert it to PNG or JPEG"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the image itself. Run `git lfs pull`"
    return "not an image of a supported format"


def why_left_out(path: str) -> Optional[str]:
    """
    Return one line that says why an image or video in a folder is not used.

    Returns:
        The reason; "" if the file has one of `IMAGE_SUFFIXES` and is used; None if it is neither an
        image nor a video.
    """
    name = os.path.basename(path).lower()
    suffix = os.path.splitext(name)[1]
    if suffix in IMAGE_SUFFIXES:
        return ""
    if suffix in VIDEO_SUFFIXES:
        return _VIDEO
    if suffix in _OTHER_IMAGE_SUFFIXES:
        hint = _HINTS.get(suffix)
        return f"{suffix} is not supported{f' here. To read it, {hint}' if hint else _CONVERT}"
    if suffix in _TEXT_SUFFIXES or not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as f:
            kind, _ = kind_of(f.read(HEAD))
    except OSError:
        return None
    if kind == "video":
        return _VIDEO
    return "it is an image, but its name has no suffix of an image" if kind else None


# -- JPEG files that take forever to decode --------------------------------------------------------

MAX_SCANS = 100  # of a JPEG, as in libtiff. Usual files have at most 10, some have 64.
MAX_SCANNED_PIXELS = 3_000_000_000  # of all scans together
MAX_JPEG_BYTES = 1 << 30
_MAX_SEGMENTS = 20_000
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # not the data's FF00, nor a restart
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the frame's size


def check_jpeg(file: IO[bytes]) -> None:
    """
    Refuse a JPEG with so many scans that decoding it would take minutes.

    A scan covers the whole picture, but may take only a few bytes.

    Args:
        file: opened for reading bytes. It is read up to the end of the first picture.

    Raises:
        ValueError: The file is too large, or has too many scans or segments.
    """
    file.seek(0, os.SEEK_END)
    if file.tell() > MAX_JPEG_BYTES:
        raise ValueError(f"a JPEG must have at most {MAX_JPEG_BYTES} bytes, got {file.tell()}")
    file.seek(0)
    content = file.read()
    position = scans = pixels = 0
    for _ in range(_MAX_SEGMENTS):
        match = _MARKER.search(content, position)
        if match is None or match[1][0] == _EOI:
            return
        marker, position = match[1][0], match.end()
        if marker in (_SOI, _TEM):
            continue
        if marker == _SOS:
            scans += 1
            # Encoders write up to 16 scans by default, whatever the size of the image.
            if scans > MAX_SCANS or (scans > 16 and scans * pixels > MAX_SCANNED_PIXELS):
                raise ValueError(f"decoding a JPEG with {scans} or more scans would take too long")
        elif marker in _SIZES:
            height, width = content[position + 3 : position + 5], content[position + 5 :][:2]
            pixels = int.from_bytes(height, "big") * int.from_bytes(width, "big")
        position += int.from_bytes(content[position : position + 2], "big")
    raise ValueError(f"a JPEG must have at most {_MAX_SEGMENTS} segments, and this one has more")
