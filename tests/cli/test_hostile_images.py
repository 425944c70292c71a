"""No image starts a program, makes a command wait, or ends it: each is named in one line."""

import io
import json
import os
import re
import signal
import socket
import struct
import sys
import time
import zlib
from types import SimpleNamespace

import pytest
from PIL import EpsImagePlugin, Image

from libra_d2.cli import export as export_command
from libra_d2.cli.main import main
from libra_d2.data import LibraDatasetMapper
from libra_d2.data.checks import images as image_checks
from libra_d2.data.checks.findings import DatasetReport
from libra_d2.data.images.formats import MAX_SCANS
from libra_d2.data.images.reader import read_header, read_image
from libra_d2.errors import UserError
from libra_d2.evaluation.analysis.results import ImageResult
from libra_d2.inference.predictor import Predictor
from libra_d2.visualization.report.pictures import Pictures

from ..data.images.image_kinds import PICTURE, encoded
from ..inference.small_detector import CONFIG, OPTIONS, blots, write_detector, write_images
from ..support.odd_images import png_of_size

EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 60\n%%EndComments\n{} loop\nshowpage\n%%EOF\n"
)
DOS_EPS = b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(EPS)) + bytes(20) + EPS
PLAIN_PS = b"%!PS\n%%BoundingBox: 0 0 80 60\n{} loop\n"
WMF = b"\xd7\xcd\xc6\x9a" + struct.pack("<HhhhhHIH", 0, 0, 0, 800, 600, 96, 0, 0) + bytes(40)
EMF = struct.pack("<II", 1, 108) + struct.pack("<8i", 0, 0, 80, 60, 0, 0, 800, 600) + b" EMF"
POSTSCRIPT = {
    "eps.jpg": EPS,
    "eps.jpeg": EPS,
    "eps.png": EPS,
    "eps.tif": EPS,
    "eps.webp": EPS,
    "eps.gif": EPS,
    "eps.bmp": EPS,
    "itself.eps": EPS,
    "dos.jpg": DOS_EPS,
    "dos.png": DOS_EPS,
    "returns.jpg": EPS.replace(b"\n", b"\r"),
    "page.ps": PLAIN_PS,
    "page.jpg": PLAIN_PS,
    "wmf.jpg": WMF,
    "emf.png": EMF + bytes(60),
}


def png_with(kind: bytes, data: bytes) -> bytes:
    """A good picture with one more chunk after its header."""
    content = encoded(PICTURE, "PNG")
    chunk = struct.pack(">I", len(data)) + kind + data
    return content[:33] + chunk + struct.pack(">I", zlib.crc32(kind + data)) + content[33:]


def jpeg_of_scans(count: int) -> bytes:
    content = encoded(PICTURE, "JPEG", progressive=True)
    second = content.index(b"\xff\xda", content.index(b"\xff\xda") + 2)
    header = int.from_bytes(content[second + 2 : second + 4], "big")
    end = content.index(b"\xff", second + 2 + header)
    while content[end + 1] == 0:
        end = content.index(b"\xff", end + 2)
    return content[:end] + content[second:end] * count + content[end:]


def large_jpeg_of_scans() -> bytes:
    """Few enough scans for a small picture, but each goes over 170 million pixels."""
    content = bytearray(jpeg_of_scans(60))
    frame = content.index(b"\xff\xc2")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 13000, 13000)
    return bytes(content)


ZEROS = zlib.compress(bytes(200_000_000), 9)
BOMBS = {
    "scans.jpg": (jpeg_of_scans(8000), "scans"),
    "large_scans.jpg": (large_jpeg_of_scans(), "scans"),
    "segments.jpg": (b"\xff\xd8" + b"\xff\xfe\0\2" * 30_000 + b"\xff\xd9", "segments"),
    "pixels.png": (png_of_size(60000, 60000), "pixels"),
    "text.png": (png_with(b"zTXt", b"k\0\0" + ZEROS), "too large"),
    "profile.png": (png_with(b"iCCP", b"p\0\0" + ZEROS), "too large"),
    "lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "empty.jpg": (b"", "empty"),
    "cut.jpg": (encoded(PICTURE, "JPEG")[:900], "[Tt]runcated"),
    "words.png": (b"no picture\n" * 9, "not an image of a supported format"),
}


@pytest.fixture(autouse=True)
def no_waiting():
    """Whatever waits for a pipe or loops for ever fails, instead of holding all tests up."""

    def fail(*_):
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(600)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """A file that is there once one of the programs that image libraries start was started."""
    mark, programs = tmp_path / "a program ran", tmp_path / "bin"
    programs.mkdir()
    for name in "gs gswin64c djpeg convert magick giftopnm ppmtogif ffmpeg heif-convert".split():
        (programs / name).write_text(f"#!/bin/sh\necho {name} >> '{mark}'\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # else it is looked for once only
    return mark


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp("run"))


@pytest.fixture
def images(tmp_path):
    """Two good images among bad ones, and what each bad one should be refused for."""
    folder = tmp_path / "images"
    write_images(folder, 2)
    reasons = dict.fromkeys(POSTSCRIPT, "PostScript|Windows metafile|not supported")
    for name, content in POSTSCRIPT.items():
        (folder / name).write_bytes(content)
    for name, (content, reason) in BOMBS.items():
        (folder / name).write_bytes(content)
        reasons[name] = reason
    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as s:
        before = os.getcwd()
        os.chdir(folder)  # names of sockets are short
        s.bind("socket.jpg")
        os.chdir(before)
    (folder / "folder.png").mkdir()
    reasons |= dict.fromkeys(("pipe.jpg", "device.png", "socket.jpg"), "not a regular file")
    reasons["folder.png"] = "a folder"
    return folder, reasons


def annotations(folder) -> str:
    """COCO annotations of one object for each file of a folder."""
    names = sorted(p.name for p in folder.iterdir())
    box = {"category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    coco = {
        "images": [
            {"id": i, "file_name": n, "width": 80, "height": 60} for i, n in enumerate(names)
        ],
        "annotations": [{**box, "id": i + 1, "image_id": i} for i in range(len(names))],
        "categories": [{"id": i, "name": n} for i, n in enumerate(("cat", "dog", "owl"), start=1)],
    }
    path = folder.parent / "coco.json"
    path.write_text(json.dumps(coco))
    return str(path)


def assert_named(text: str, reasons: dict) -> None:
    """Each bad image is named on exactly one line, with the reason."""
    for name, reason in reasons.items():
        lines = [line for line in text.splitlines() if re.search(rf"\b{re.escape(name)}\b", line)]
        assert len(lines) == 1 and re.search(reason, lines[0]), (name, lines)


def test_the_mark_is_left(tmp_path, mark):
    """Otherwise the other tests could not fail: Pillow itself does start Ghostscript."""
    (tmp_path / "cat.jpg").write_bytes(EPS)
    with Image.open(tmp_path / "cat.jpg") as image, pytest.raises(OSError):
        image.load()
    assert mark.exists()


def test_the_reader_and_the_mapper(images, mark):
    folder, reasons = images
    mapper = LibraDatasetMapper(is_train=True, augmentations=[], image_format="BGR")
    for name, reason in reasons.items():
        start = time.process_time()
        path = folder / name
        sources = [path, str(path)]
        if path.is_file():
            content = path.read_bytes()
            sources += [content, memoryview(content), io.BytesIO(content)]
        for source in sources:
            with pytest.raises(ValueError, match=reason) as error:
                read_image(source)
            assert "\n" not in str(error.value)
        for decode in (False, True):
            header = read_header(path, decode=decode)
            assert header.error or (name == "cut.jpg" and not decode), name
        assert mapper({"file_name": str(path), "width": 80, "height": 60}) is None
        assert time.process_time() - start < 5, name
    assert not mark.exists()


@pytest.mark.parametrize("name", ["eps.jpg", "dos.png", "scans.jpg"])
def test_what_pillow_has_opened(images, mark, run, name):
    """An image that Pillow opened but did not decode starts the program when it is decoded."""
    opened = Image.open(images[0] / name)
    for read in (read_image, Predictor(run), lambda image: read_header(image, decode=True)):
        try:
            found = read(opened)
        except ValueError as e:
            assert re.search("EPS, is not supported|scans", str(e))
        else:
            assert re.search("EPS, is not supported|scans", found.error)
    assert not mark.exists()


def test_infer_names_each_and_goes_on(images, mark, run, tmp_path, capsys, monkeypatch):
    folder, reasons = images
    names = sorted(p.name for p in folder.iterdir())
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"images/{name}\n" for name in names))
    paths = "".join(f"{folder / name}\n" for name in names).encode()
    out = str(tmp_path / "found.json")
    for source in ([str(folder)], [str(listing)], ["-"]):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(paths)))
        drawn = ["--draw", str(tmp_path / "drawn")]
        assert main(["infer", *source, "--model", run, "--output", out, *drawn]) == 1
        printed = capsys.readouterr()
        assert f"{len(names)} images: 2 done, {len(names) - 2} skipped" in printed.out
        assert_named(printed.err, reasons)
    predictor = Predictor(run)
    for name in reasons:
        with pytest.raises(UserError):
            predictor([str(folder / "0000.png"), str(folder / name)])
    assert not mark.exists()


def test_data_sets(images, mark, run, tmp_path, capsys):
    """draw, pack, split, check-data of COCO and YOLO data, evaluate, the report and export."""
    folder, reasons = images
    json_file = annotations(folder)
    where = ["--images", str(folder), "--output", str(tmp_path / "drawn")]
    assert main(["draw", "--annotations", json_file, *where]) == 1
    printed = capsys.readouterr()
    assert "2 pictures" in printed.out
    files = {n: r for n, r in reasons.items() if (folder / n).is_file()}
    assert_named(printed.err, files)
    store = ["--out", str(tmp_path / "a.lmdb")]
    assert main(["pack", "--json", json_file, "--images", str(folder), *store]) == 1
    assert_named(capsys.readouterr().err, files)
    parts = ["split", f"coco:{json_file},{folder}", "--output", str(tmp_path / "parts")]
    assert main(parts) == 0
    found = json.loads((tmp_path / "parts/split.json").read_text())["unreadable_images"]
    assert_named("\n".join(f"{path}: {reason}" for path, reason in found), reasons)

    out = ["DATASETS.TRAIN", "()", "OUTPUT_DIR", str(tmp_path / "out")]
    coco = ["DATASETS.TEST", f"coco:{json_file},{folder}", *out]
    assert main(["check-data", "--config-file", f"{run}/config.yaml", *coco]) == 1
    report = json.loads((tmp_path / "out/data_check.json").read_text())
    found = [f for d in report["datasets"] for f in d["findings"]]
    (found,) = (f for f in found if f["check"] == "unreadable_images")
    assert found["count"] == len(files)
    assert main(["evaluate", "--model", run, "--opts", *coco]) == 0

    (tmp_path / "classes.txt").write_text("cat\ndog\nowl\n")
    yolo = ["DATASETS.TEST", f"yolo:{tmp_path}", *out]
    main(["check-data", "--config-file", CONFIG, *OPTIONS, *yolo])

    for name in reasons:
        image = ImageResult(name, name, str(folder / name), 80, 60, 0, 0, 0, "", 0.0, [], [])
        assert "cannot be read" in Pictures().frame(image)["note"]
    for name in reasons:
        with pytest.raises(UserError, match=re.escape(name)):
            export_command._images([str(folder / name)], "BGR")
    assert not mark.exists()


def test_videos_that_are_none(run, tmp_path, capsys, mark):
    """OpenCV would follow a playlist to other files and URLs, whatever its name."""
    videos = {
        "list.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/hostname\n",
        "concat.avi": b"ffconcat version 1.0\nfile /etc/hostname\n",
        "eps.mov": EPS,
        "words.mkv": b"no film\n",
    }
    for name, content in videos.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.mp4")
    paths = [str(tmp_path / n) for n in (*videos, "pipe.mp4")]
    write_images(tmp_path / "good", 1)
    out = ["--output", str(tmp_path / "found.json")]
    assert main(["infer", *paths, str(tmp_path / "good"), "--model", run, *out]) == 1
    reasons = dict.fromkeys(videos, "not a video of a supported format")
    assert_named(capsys.readouterr().err, {**reasons, "pipe.mp4": "not a regular file"})
    assert not mark.exists()


def test_voc_folders(mark, tmp_path, capsys):
    """The size of an image is read where its XML file has none."""
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    for name, content in (("eps", EPS), ("good", encoded(Image.fromarray(blots(0)), "JPEG"))):
        (tmp_path / f"JPEGImages/{name}.jpg").write_bytes(content)
        box = "<xmin>2</xmin><ymin>2</ymin><xmax>40</xmax><ymax>40</ymax>"
        (tmp_path / f"Annotations/{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><object><name>cat</name>"
            f"<bndbox>{box}</bndbox></object></annotation>"
        )
    data = ["DATASETS.TEST", f"voc:{tmp_path}", "DATASETS.TRAIN", "()"]
    main(["check-data", "--config-file", CONFIG, *data, "OUTPUT_DIR", str(tmp_path / "out")])
    assert "eps.jpg" in capsys.readouterr().out
    assert not mark.exists()


def test_files_of_many_frames_are_read_in_no_time():
    """The first frame is enough: counting them goes through the whole file, or for ever."""
    frame = encoded(Image.new("L", (8, 8)), "GIF")
    image = frame[frame.index(b",") : -1]
    many = frame[: frame.index(b",")] + image * 200_000 + b";"
    tiff = bytearray(encoded(PICTURE, "TIFF"))
    directory = int.from_bytes(tiff[4:8], "little")
    entries = int.from_bytes(tiff[directory : directory + 2], "little")
    after = directory + 2 + 12 * entries
    tiff[after : after + 4] = struct.pack("<I", directory)  # the next one is itself
    start = time.process_time()
    for content in (many, bytes(tiff)):
        assert read_header(content, decode=True).error == ""
        assert read_image(content).shape[2] == 3
    assert time.process_time() - start < 2


def test_usual_numbers_of_scans_are_read():
    assert MAX_SCANS >= 64  # what jpegtran writes with some of its scripts
    assert (read_image(jpeg_of_scans(40)) == read_image(jpeg_of_scans(0))).all()
    # A thumbnail, and a film after the picture as phones write it, are not counted.
    trailer = encoded(PICTURE, "JPEG") + b"\xff\xda\0\2" * 500
    assert read_image(trailer).shape == (*PICTURE.size[::-1], 3)


def exit_code(command) -> int:
    try:
        return main(command)
    except SystemExit as e:  # of a launched process
        return e.code


def test_nothing_but_unreadable_images(mark, run, tmp_path, capsys):
    """The exit code was 0, and a folder of pictures was named that did not exist."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(EPS)
    json_file, drawn = annotations(folder), str(tmp_path / "drawn")
    out = ["--output", str(tmp_path / "found.json")]
    coco = ["DATASETS.TEST", f"coco:{json_file},{folder}"]
    coco += ["OUTPUT_DIR", str(tmp_path / "out")]
    train = ["DATASETS.TRAIN", f"coco:{json_file},{folder}"]
    config = ["--config-file", f"{run}/config.yaml"]
    store = ["--out", str(tmp_path / "a.lmdb")]
    weights = ["MODEL.WEIGHTS", f"{run}/model_final.pth", "DATASETS.CHECK", "False"]
    for command in (
        ["infer", str(folder), "--model", run, *out, "--draw", drawn],
        ["draw", "--annotations", json_file, "--images", str(folder), "--output", drawn],
        ["check-data", *config, *coco, "DATASETS.TRAIN", "()"],
        ["pack", "--json", json_file, "--images", str(folder), *store],
        ["split", f"coco:{json_file},{folder}", "--output", str(tmp_path / "parts")],
        ["evaluate", "--model", run, "--opts", *coco],
        ["proposals", *config, *coco, *weights, *train],
    ):
        assert exit_code(command) == 2, command
        lines = capsys.readouterr().err.splitlines()
        (line,) = (s for s in lines if s.startswith(("libra-d2 ", "error: ")))
        assert re.search(r"none of .*3? images .*0\.jpg.*PostScript", line), line
    assert not mark.exists()


def test_unreadable_images_beyond_the_sample(tmp_path, monkeypatch):
    """Before training, a sample of the images is opened; if it has none that is good, all are."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.jpg").write_bytes(EPS)
    monkeypatch.setattr(image_checks, "QUICK_LIMIT", 2)
    report = DatasetReport("train", "bad", "", "", {}, {})
    dicts = [{"file_name": str(p), "width": 80, "height": 60} for p in sorted(folder.iterdir())]
    with pytest.raises(UserError, match=r"none of the images can be read.*0\.jpg"):
        image_checks.check_images(report, dicts, thorough=False)
    (folder / "3.jpg").write_bytes(encoded(Image.fromarray(blots(0)), "JPEG"))
    report = DatasetReport("train", "bad", "", "", {}, {})
    image_checks.check_images(report, dicts, thorough=False)
    assert report.findings[0].count == 3
