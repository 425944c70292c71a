"""What is in a folder is taken or named; nothing is left out without a word."""

import pytest

from libra_d2.data.datasets.yolo import read_yolo, yolo_to_coco
from libra_d2.data.images.folders import images_of_folder
from libra_d2.data.images.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES, why_left_out
from libra_d2.data.images.sources import find_images

from .image_kinds import PICTURE, encoded

PNG = encoded(PICTURE, "PNG")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(40)
LEFT_OUT = {
    "film.mp4": (b"\0\0\0\x18ftypmp42" + bytes(40), "video"),
    "film.MOV": (b"", "video"),
    "film of no suffix": (b"\x1aE\xdf\xa3" + bytes(40), "video"),
    "camera.NEF": (b"II*\0" + bytes(40), "Convert it"),
    "drawing.svg": (b"<svg/>", "Convert it"),
    "layers.psd": (b"8BPS" + bytes(40), "Convert it"),
    "photo": (PNG, "suffix"),
    "photo.jpg.bak": (PNG, "suffix"),
}
TAKEN = {"a.JPG": PNG, "b.jfif": PNG, "c.tiff": b"", "d.webp": b"no picture"}
OTHERS = ("a.txt", "a.json", "a.xml", ".DS_Store", "Makefile", "data.yaml", "weights.pth")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, content in TAKEN.items():
        (folder / name).write_bytes(content)
    for name, (content, _) in LEFT_OUT.items():
        (folder / name).write_bytes(content)
    for name in OTHERS:
        (folder / name).write_bytes(b"GNU, not an image\n" * 30)
    return folder


def test_files_are_taken_or_named(folder):
    listed = images_of_folder(folder, recursive=False)
    found = {f.path.rpartition("/")[2]: f.left_out for f in listed}
    assert found.keys() == TAKEN.keys() | LEFT_OUT.keys()
    assert not any(found[name] for name in TAKEN)
    for name, (_, reason) in LEFT_OUT.items():
        assert reason in found[name], name
    items = {item.key.rpartition("/")[2]: item.error for item in find_images([str(folder)])}
    assert items == found


def test_heic_without_its_package(folder, monkeypatch):
    (folder / "phone.HEIC").write_bytes(HEIC)
    reason = why_left_out(str(folder / "phone.HEIC"))
    assert ".heic" in IMAGE_SUFFIXES or "libra_d2[heif]" in reason


def test_suffixes():
    """Those of Pillow, without the formats that start programs and without those of videos."""
    usual = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".mpo", ".jp2"}
    assert usual <= set(IMAGE_SUFFIXES)
    assert not {".eps", ".ps", ".pdf", ".wmf", ".psd", ".mpg"} & set(IMAGE_SUFFIXES)
    assert not set(IMAGE_SUFFIXES) & set(VIDEO_SUFFIXES)


def test_yolo_folders_name_what_is_not_read(folder):
    (folder.parent / "classes.txt").write_text("cat\n")
    (folder.parent / "labels").mkdir()
    (folder.parent / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    names, paths, _ = read_yolo(str(folder.parent), "")
    coco = yolo_to_coco(paths, str(folder), names)
    assert {i["file_name"] for i in coco["images"]} >= {"a.JPG", "b.jfif"}
    unreadable = {path.rpartition("/")[2]: why for path, why in coco["info"]["unreadable_images"]}
    assert {"film.mp4", "film of no suffix", "layers.psd", "c.tiff"} <= unreadable.keys()
    assert "video" in unreadable["film.mp4"] and "empty" in unreadable["c.tiff"]


def test_links_in_a_circle_end(folder):
    """Each image was counted 41 times, until the system had followed enough links."""
    (folder / "again").symlink_to(folder)
    (folder / "sub").mkdir()
    (folder / "sub/up").symlink_to(folder)
    (folder / "sub/e.png").write_bytes(PNG)
    found = [f.path for f in images_of_folder(folder, recursive=True, follow_links=True)]
    assert len(found) == len(set(found)) == len(TAKEN) + len(LEFT_OUT) + 1
    # infer does not follow links to folders.
    assert len(find_images([str(folder)], recursive=True)) == len(found)


def test_linked_folders_of_data_sets_are_listed(tmp_path, folder):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/linked").symlink_to(folder)
    found = images_of_folder(tmp_path / "set", recursive=True, follow_links=True)
    assert len(list(found)) == len(TAKEN) + len(LEFT_OUT)
