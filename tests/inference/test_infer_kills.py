"""
`libra-d2 infer`, killed at any moment: its file is valid JSON, and the resumed run's the same to
the last byte. LIBRA_D2_TEST_KILLS: how many more times it is killed, on 200 images.
"""

import json
import os
import random
import subprocess
import sys
import time

from libra_d2.cli.main import main

from ..conftest import ROOT
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
    assert "of them before" in capsys.readouterr().out
    assert killed.read_bytes() == whole.read_bytes()
    print(f"images in the file and in the journal after each kill: {counts}")
