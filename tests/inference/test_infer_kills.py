"""
`libra-d2 infer`, killed or stopped at any moment: its file is valid JSON, and the resumed run's the
same to the last byte. LIBRA_D2_TEST_KILLS: how many more times it is killed, on 200 images.
"""

import json
import os
import random
import signal
import time

import pytest
from PIL import Image

from libra_d2.cli.main import main

from ..support.programs import program_server
from .small_detector import write_detector, write_images

MORE_KILLS = int(os.environ.get("LIBRA_D2_TEST_KILLS", "0"))


def arguments(folder, output):
    return ["infer", f"{folder}/images", "--model", str(folder), "--output", str(output)]


def start(folder, *args):
    files = {"out": folder / "out.txt", "err": folder / "err.txt"}
    return program_server().start("-m", "libra_d2.cli.main", *args, **files)


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
        process = start(tmp_path, *arguments(tmp_path, killed), "--resume")
        while not process.ended() and lines(journal) <= target:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.wait()
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
    process = start(tmp_path, *args, "--draw", str(drawn))
    journal = output.with_name("p.json.journal")
    while not process.ended() and lines(journal) < 3:
        time.sleep(0.002)
    os.kill(process.pid, getattr(signal, name))
    ended = process.wait(timeout=60)
    out, err = ((tmp_path / name).read_text() for name in ("out.txt", "err.txt"))
    assert ended == status, err
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
