"""Images of every kind are read as they look, or refused in one line."""

import os

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image as detectron2_read_image
from PIL import Image

from libra_d2.data.images.reader import read_image

from ...support.odd_images import BAD, PICTURE, SAME_AS_DETECTRON2
from .image_kinds import encoded, exif


@pytest.mark.parametrize("name", SAME_AS_DETECTRON2)
@pytest.mark.filterwarnings("error")
def test_as_detectron2_reads_them(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(SAME_AS_DETECTRON2[name])
    for format in ("RGB", "BGR"):
        expected = detectron2_read_image(str(path), format)
        assert np.array_equal(read_image(path, format), expected)
    assert np.array_equal(read_image(SAME_AS_DETECTRON2[name]), expected)
    with open(path, "rb") as f:
        assert np.array_equal(read_image(f), expected)


@pytest.mark.filterwarnings("error")
def test_transparent_palettes_are_read_without_a_warning():
    content = encoded(PICTURE.convert("P"), "PNG", transparency=bytes([0, 128]))
    assert np.array_equal(read_image(content, "RGB"), PICTURE.convert("P").convert("RGB"))


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_in_one_line(tmp_path, name):
    content, reason = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as info:
        read_image(path)
    assert "\n" not in str(info.value) and str(path) not in str(info.value)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_tiff_is_turned_once(orientation):
    """Pillow turns it itself; Detectron2 then turns it once more."""
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    content = encoded(Image.fromarray(values), "TIFF", exif=exif(orientation))
    turned = np.rot90(values, {3: 2, 6: 3, 8: 1}[orientation])
    assert (read_image(content)[:, :, 0] == turned).all()


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in {
        "folder.jpg": "a folder",
        "loop.jpg": "symbolic links",
        "broken.jpg": "No such file",
        "pipe.jpg": "not a regular file",
        "missing.jpg": "No such file",
        "nul\0.jpg": "null",
    }.items():
        with pytest.raises(ValueError, match=reason):
            read_image(str(tmp_path / name))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_files_without_permission_are_named(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(SAME_AS_DETECTRON2["rgb.jpg"])
    path.chmod(0)
    with pytest.raises(ValueError, match="Permission denied"):
        read_image(path)


RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(format):
    """Detectron2 makes everything above 255 of 65535 white."""
    image = read_image(encoded(Image.fromarray(RAMP), format))
    assert image.dtype == np.uint8 and image.shape == (256, 256, 3)
    assert np.abs(image[:, :, 0] - RAMP / 257).max() <= 0.5
    assert (image == image[:, :, :1]).all()


def test_16_bits_are_rotated_too():
    values = np.array([[0, 65535, 257 * 7]], dtype=np.uint16)
    content = encoded(Image.fromarray(values), "PNG", exif=exif(6))
    assert read_image(content)[:, 0, 0].tolist() == [0, 255, 7]


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0, 0.2, 1], [0, 51, 255]),  # of [0, 1]
        ([0, 51, 255], [0, 51, 255]),
        ([0, 51, 100], [0, 51, 100]),  # of [0, 255], and so not stretched
        ([-100, 20, 100], [0, 153, 255]),
        ([1000, 1800, 3000], [0, 102, 255]),
        ([0, 0, 0], [0, 0, 0]),
        ([5000, 5000, 5000], [0, 0, 0]),
    ],
)
def test_floats(values, expected):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert read_image(encoded(image, "TIFF"))[0, :, 0].tolist() == expected


def test_integers_of_32_bits():
    for values, expected in (([0, 65535, 257], [0, 255, 1]), ([0, 10**6, 10**6], [0, 255, 255])):
        image = Image.fromarray(np.array([values], dtype=np.int32))
        assert read_image(encoded(image, "TIFF"))[0, :, 0].tolist() == expected
