"""Progress on a terminal and in files; all work that may take long must show it."""

import io
import sys
import threading
import time

import pytest
import torch
from detectron2.utils import comm
from tqdm import tqdm

from libra_d2.checkpoint import LibraCheckpointer
from libra_d2.checkpoint.conversion import convert
from libra_d2.data.datasets import class_selection
from libra_d2.data.datasets.coco import load_coco
from libra_d2.evaluation import coco_metrics
from libra_d2.utils import json_files
from libra_d2.utils import progress as module
from libra_d2.utils.json_files import read_json
from libra_d2.utils.progress import announced, progress

from ..support.coco_files import write_dataset


class Output(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.fixture
def clock(monkeypatch):
    """A clock whose time only passes when a test says so."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def run(monkeypatch, clock, terminal, *, count, seconds, said=()):
    output = Output(terminal)
    monkeypatch.setattr(sys, "stderr", output)
    for i in progress(range(count), "Checking"):
        clock[0] += seconds
        if i in said:
            tqdm.write("a message", file=sys.stderr)
    return output.getvalue()


def test_a_file_gets_a_line_every_half_minute_and_the_last_one(monkeypatch, clock):
    text = run(monkeypatch, clock, False, count=100, seconds=1.1)
    lines = text.splitlines()
    assert "\r" not in text and "\x1b" not in text
    assert 4 <= len(lines) <= 6 and all(line.startswith("Checking: ") for line in lines)
    assert "100/100" in lines[-1] and "1.10s/image" in lines[-2] and "<" in lines[0]


def test_messages_in_between_repeat_no_line(monkeypatch, clock):
    text = run(monkeypatch, clock, False, count=100, seconds=1.1, said=range(0, 100, 3))
    assert len([line for line in text.splitlines() if "Checking" in line]) <= 6
    assert "\r" not in text


def test_a_terminal_gets_a_bar_that_stays(monkeypatch, clock):
    text = run(monkeypatch, clock, True, count=100, seconds=1.1)
    assert text.count("\r") > 50 and "100/100" in text and text.endswith("\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_done_at_once_shows_nothing(monkeypatch, clock, terminal):
    assert run(monkeypatch, clock, terminal, count=10, seconds=module.DELAY / 20) == ""


def test_only_the_first_of_several_processes_shows_it(monkeypatch, clock, capsys):
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert run(monkeypatch, clock, True, count=100, seconds=1.1) == ""
    with announced("Reading", at_once=True):
        pass
    assert capsys.readouterr().err == ""


def test_a_call_that_takes_long_is_announced_and_its_duration_told(monkeypatch, capsys):
    monkeypatch.setattr(module, "DELAY", 0.05)
    with announced("Reading a\x1b[31m.pth"):
        deadline = time.monotonic() + 10
        while not (begun := capsys.readouterr().err) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert begun == "Reading a\\x1b[31m.pth ...\n"
    ended = capsys.readouterr().err
    assert ended.startswith("Reading a\\x1b[31m.pth: ") and ended.endswith(" s\n")


def test_a_call_that_lets_no_thread_run_is_announced_before_it(capsys):
    with announced("Reading a.json", at_once=True):
        assert capsys.readouterr().err == "Reading a.json ...\n"
    assert capsys.readouterr().err.startswith("Reading a.json: 0.")


def test_a_short_or_failed_call_tells_no_duration(capsys):
    with announced("Reading a.json"):
        pass
    with pytest.raises(ValueError), announced("Reading a.json", at_once=True):
        raise ValueError
    assert capsys.readouterr().err == "Reading a.json ...\n"
    assert not [t for t in threading.enumerate() if isinstance(t, threading.Timer)]


@pytest.fixture
def shown(monkeypatch, capsys):
    """Return what would have been shown so far if everything took long."""

    class AtOnce(threading.Timer):
        def start(self):
            self.function()

    monkeypatch.setattr(module, "DELAY", 0)
    monkeypatch.setattr(module, "LINE_PERIOD", 0)
    monkeypatch.setattr(module.threading, "Timer", AtOnce)
    texts = []

    def all_of_it():
        texts.append(capsys.readouterr().err)
        return "".join(texts)

    return all_of_it


def test_reading_annotations_shows_progress(tmp_path, shown):
    json_file, images = write_dataset(tmp_path)
    load_coco(json_file, images, str(tmp_path), ("dog", "cat"))
    for text in (
        f"Reading {json_file} ...",
        f"Checking {json_file} ...",
        "Looking for images: 100%",
        "Reading annotations: 100%",
        f"Making a copy of {json_file} for the evaluation ...",
    ):
        assert text in shown(), text


def test_large_json_is_announced_before_it_is_parsed(tmp_path, monkeypatch, capsys):
    """The parser blocks all other threads, including the one that would announce it later."""
    path = tmp_path / "a.json"
    path.write_text("[1]")
    read_json(str(path))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(json_files, "_SLOW_BYTES", 3)
    read_json(str(path))
    assert capsys.readouterr().err.startswith(f"Reading {path} ...\n")
    monkeypatch.setattr(class_selection, "_SLOW_ANNOTATIONS", 0)
    class_selection.save_annotations({"annotations": []}, str(path))
    assert f"Making a copy of {path} for the evaluation ...\n" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_conversion_of_weights_shows_progress(tmp_path, shown, suffix):
    source, converted = str(tmp_path / "a.pth"), str(tmp_path / f"b{suffix}")
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, source)
    convert(source, converted)
    assert f"Reading {source} ..." in shown() and f"Writing {converted} ..." in shown()
    assert f"Writing {converted}: 0." in shown()


def test_checksums_of_a_checkpoint_show_progress(tmp_path, shown):
    LibraCheckpointer(torch.nn.Linear(1, 1), str(tmp_path)).save("model_0000001")
    assert "Verifying" not in shown()  # it has just been written
    checkpointer = LibraCheckpointer(torch.nn.Linear(1, 1), str(tmp_path))
    assert checkpointer.get_checkpoint_file()
    assert "Verifying model_0000001.pth: 100%" in shown()


@pytest.mark.parametrize("backend", ["pycocotools", "faster-coco-eval"])
def test_evaluation_shows_progress(tmp_path, shown, backend):
    if backend == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    content = read_json(write_dataset(tmp_path)[0])
    first = content["annotations"][0]
    keys = ("image_id", "category_id", "bbox")
    results = [{**{k: first[k] for k in keys}, "score": 0.5}]
    coco_metrics.coco_metrics(content, results, backend=backend)
    if backend == "pycocotools":
        assert "Indexing 1 detections ..." in shown()
        assert "Matching detections: 100%" in shown()
    else:
        text = f"Evaluating 1 detections on {len(content['images'])} images"
        assert f"{text} ...\n" in shown() and f"{text}: " in shown()


def test_large_evaluation_is_announced_before_it_starts(tmp_path, monkeypatch, capsys):
    pytest.importorskip("faster_coco_eval")
    content = read_json(write_dataset(tmp_path)[0])
    coco_metrics.coco_metrics(content, [], backend="faster-coco-eval")
    assert "Evaluating" not in capsys.readouterr().err
    monkeypatch.setattr(coco_metrics, "_SLOW_DETECTIONS", 0)
    coco_metrics.coco_metrics(content, [], backend="faster-coco-eval")
    assert "Evaluating 0 detections on" in capsys.readouterr().err
