"""Hashes are of the pixels that training sees, and images that cannot be read have none."""

import numpy as np
import pytest
from PIL import Image

from libra_d2.data.splitting.groups import count_bits
from libra_d2.data.splitting.image_hashes import hash_images

from ...support.pictures import picture

COPIES = {
    "small.png": lambda image, path: image.resize((48, 32)).save(path),
    "strong.jpg": lambda image, path: image.save(path, quality=40),
    "deep.tif": lambda image, path: Image.fromarray(
        np.asarray(image.convert("L")).astype(np.uint16) * 257
    ).save(path),
    "alpha.png": lambda image, path: image.convert("RGBA").save(path),
    "turned.jpg": lambda image, path: image.transpose(Image.Transpose.ROTATE_90).save(
        path, exif=turned(), quality=95
    ),
}


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    return exif


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_near_and_another_image_is_not(tmp_path, name):
    for i in range(5):
        picture(i).save(tmp_path / "a.png")
        picture(100 + i).save(tmp_path / "other.png")
        COPIES[name](picture(i), tmp_path / name)
        paths = [str(tmp_path / n) for n in ("a.png", name, "other.png")]
        images, hashes, unreadable = hash_images(paths)
        assert images.tolist() == [0, 1, 2] and not unreadable
        assert count_bits(hashes[:1] ^ hashes[1:2]) <= 4
        assert count_bits(hashes[:1] ^ hashes[2:]) > 16


def test_what_cannot_be_read_is_left_out_with_the_reason(tmp_path):
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    picture(1).save(tmp_path / "c.png")
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:600])
    paths = [str(tmp_path / f"{n}.png") for n in "bacde"]
    images, hashes, unreadable = hash_images(paths)
    assert images.tolist() == [1, 2] and hashes.dtype == np.uint64 and len(hashes) == 2
    assert [path for path, _ in unreadable] == [paths[0], paths[3], paths[4]]
    assert unreadable[0][1] == "the file is empty" and "\n" not in unreadable[1][1]


def test_none_of_no_images():
    images, hashes, unreadable = hash_images([])
    assert len(images) == len(hashes) == len(unreadable) == 0
