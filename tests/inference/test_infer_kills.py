"""
`libra-d2 infer`, killed or stopped at any moment: its file is valid JSON, and the resumed run's the
same to the last byte. LIBRA_D2_TEST_KILLS: how many more times it is killed, on 200 images.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from libra_d2.cli.main import main

from ..support.project import ROOT
from .small_detector import write_detector, write_images

MORE_KILLS = int(os.environ.get("LIBRA_D2_TEST_KILLS", "0"))


def arguments(folder, output):
    return ["infer", f"{folder}/images", "--model", str(folder), "--output", str(output)]


def start(*args):
    return subprocess.Popen(
        [sys.executable, "-m", "libra_d2.cli.main", *args],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A test run in the background has interrupts ignored, which a child would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def lines(journal):
    """Images in the journal, whose first line is about the run."""
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def test_killed_runs_end_as_the_one_that_was_not(tmp_path, capsys):
    write_detector(tmp_path)
    num_images = 200 if MORE_KILLS else 40
    write_images(tmp_path / "images", num_images)
    whole, killed = tmp_path / "whole.json", tmp_path / "killed.json"
    assert main(arguments(tmp_path, whole)) == 0

    rng = random.Random(MORE_KILLS)
    journal = tmp_path / "killed.json.journal"
    counts = []
    for kills_left in range(3 + MORE_KILLS, 0, -1):
        done = lines(journal)
        # On average, so that the kills are spread over all images.
        target = done + rng.uniform(0, 2) * (num_images - done) / (kills_left + 1)
        process = start(*arguments(tmp_path, killed), "--resume")
        while process.poll() is None and lines(journal) <= target:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()  # SIGKILL
        process.communicate()
        counts.append((len(json.loads(killed.read_text())), lines(journal)))
    for of_one in zip(*counts):
        assert list(of_one) == sorted(of_one), f"what was there is gone: {counts}"
    assert any(0 < n < num_images for _, n in counts), f"never killed in between: {counts}"
    assert main([*arguments(tmp_path, killed), "--resume"]) == 0
    assert "by an earlier run" in capsys.readouterr().out
    assert killed.read_bytes() == whole.read_bytes()
    print(f"images in the file and in the journal after each kill: {counts}")


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_stopped_run_leaves_whole_files_and_goes_on(tmp_path, name, status):
    write_detector(tmp_path)
    write_images(tmp_path / "images", 40)
    output, drawn = tmp_path / "out" / "p.json", tmp_path / "drawn"
    args = [*arguments(tmp_path, output), "--csv", str(tmp_path / "out" / "p.csv")]
    process = start(*args, "--draw", str(drawn))
    journal = output.with_name("p.json.journal")
    while process.poll() is None and lines(journal) < 3:
        time.sleep(0.002)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert out == "" and "Traceback" not in err
    assert err.splitlines()[-1] == (
        f"interrupted: the detections so far are in {output}. Give --resume to continue"
    )
    found = json.loads(output.read_text())
    assert 3 <= len(found) == lines(journal) < 40
    assert {p.name for p in output.parent.iterdir()} == {"p.json", "p.csv", "p.json.journal"}
    assert len(found) <= len(list(drawn.iterdir())) <= 40
    for path in drawn.iterdir():
        Image.open(path).load()
    assert main([*args, "--draw", str(drawn), "--resume"]) == 0
    assert len(json.loads(output.read_text())) == len(list(drawn.iterdir())) == 40
