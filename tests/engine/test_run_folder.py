import argparse
import json
import re
import subprocess
from pathlib import Path

import pytest

from libra_d2.engine import load_cfg, setup
from libra_d2.engine.run_folder import run_folder
from libra_d2.engine.run_record import git_state, write_run_record
from libra_d2.errors import UserError

from ..support.setup_arguments import arguments


def test_a_new_folder_for_each_run(tmp_path):
    """Two runs that start in the same second have different folders."""
    folders = [run_folder(str(tmp_path), "my-idea_2", resume=False) for _ in range(2)]
    assert len(set(folders)) == 2
    for folder in folders:
        assert re.fullmatch(re.escape(str(tmp_path)) + r"/\d{6}_\d{6}_my-idea_2", folder)


def test_resume_finds_the_newest_of_that_brief(tmp_path):
    names = [
        "240101_120000_a",
        "240102_110000_a",
        "240103_120000_b",
        "240104_120000_a_a",
        "notes_a",
    ]
    for name in names:
        (tmp_path / name).mkdir()
    assert run_folder(str(tmp_path), "a", resume=True) == str(tmp_path / "240102_110000_a")
    new = run_folder(str(tmp_path / "other"), "a", resume=True)  # nothing to go on with
    assert new.startswith(str(tmp_path / "other")) and new.endswith("_a")


@pytest.mark.parametrize("brief", ["a/b", "../a", "my idea", "a*"])
def test_a_brief_that_is_no_folder_name_is_refused(tmp_path, brief):
    with pytest.raises(UserError, match=r"OUTPUT_BRIEF"):
        run_folder(str(tmp_path), brief, resume=False)
    assert not list(tmp_path.iterdir())


def test_all_processes_agree_on_the_folder(tmp_path, monkeypatch):
    """Other processes use the main process's name, and create no folder of their own."""
    monkeypatch.setattr("libra_d2.engine.run_folder.comm.is_main_process", lambda: False)
    monkeypatch.setattr(
        "libra_d2.engine.run_folder.comm.all_gather", lambda mine: ["of the main process", mine]
    )
    assert run_folder(str(tmp_path), "a", resume=False) == "of the main process"
    assert not list(tmp_path.iterdir())


def with_flags(args, **flags):
    return argparse.Namespace(**{**vars(args), **flags})


def test_run_goes_into_its_folder_and_back_into_it(tmp_path):
    """The saved config names the folder of the run, not a new folder inside it."""
    args = with_flags(arguments(tmp_path, "OUTPUT_BRIEF", "idea"), resume=False)
    cfg = setup(args)
    assert re.search(r"/out/\d{6}_\d{6}_idea$", cfg.OUTPUT_DIR)
    saved = load_cfg(f"{cfg.OUTPUT_DIR}/config.yaml")
    assert (saved.OUTPUT_DIR, saved.OUTPUT_BRIEF) == (cfg.OUTPUT_DIR, "")

    for again in (
        with_flags(args, resume=True),
        with_flags(args, resume=True, config_file=f"{cfg.OUTPUT_DIR}/config.yaml", opts=[]),
    ):
        assert setup(again).OUTPUT_DIR == cfg.OUTPUT_DIR
    assert len(list((tmp_path / "out").iterdir())) == 1

    entries = json.loads((tmp_path / "out").joinpath(cfg.OUTPUT_DIR, "run.json").read_text())
    assert len(entries) == 3
    assert set(entries[0]) == {
        *("command", "git", "versions", "device", "world_size", "start_time")
    }
    assert entries[0]["device"] == cfg.MODEL.DEVICE and entries[0]["world_size"] == 1
    assert {"libra_d2", "torch", "detectron2"} <= set(entries[0]["versions"])


def test_evaluation_makes_a_folder_only_if_asked(tmp_path):
    args = with_flags(arguments(tmp_path), resume=False, eval_only=True)
    config = tmp_path / "with_brief.yaml"
    config.write_text(f"OUTPUT_BRIEF: idea\nOUTPUT_DIR: {tmp_path / 'out'}\n")
    opts = args.opts + ["DATASETS.TEST", args.opts[1]]
    args = with_flags(args, config_file=str(config), opts=opts)
    unasked = setup(args)
    assert Path(unasked.OUTPUT_DIR) == tmp_path / "out"
    assert not (tmp_path / "out/run.json").exists()
    asked = setup(with_flags(args, opts=[*opts, "OUTPUT_BRIEF", "test"]))
    assert asked.OUTPUT_DIR.endswith("_test")


@pytest.mark.parametrize("damage", ["{", "{}", "[1]", '"text"', "[" * 100000])
def test_the_record_keeps_every_start(tmp_path, caplog, damage):
    """A damaged record, or one with wrong types, is renamed with a warning."""
    cfg = load_cfg("configs/demo.yaml", ["OUTPUT_DIR", str(tmp_path)])
    for expected in (1, 2):
        write_run_record(cfg)
        assert len(json.loads((tmp_path / "run.json").read_text())) == expected
    (tmp_path / "run.json").write_text(damage)
    write_run_record(cfg)
    assert len(json.loads((tmp_path / "run.json").read_text())) == 1
    assert (tmp_path / "run_old.json").read_text() == damage
    assert "run.json must be a list of JSON objects, but is not. It was renamed to" in caplog.text


def test_git_state_is_that_of_the_file(tmp_path):
    file = tmp_path / "code.py"
    file.write_text("1")
    assert git_state(str(file)) is None

    def git(*args):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", tmp_path, *identity, *args], check=True, capture_output=True)

    git("init")
    assert git_state(str(file)) is None  # as of a package installed within some repository
    git("add", "code.py")
    git("commit", "-m", "first")
    (tmp_path / "output").write_text("of a run")
    state = git_state(str(file))
    assert re.fullmatch(r"[0-9a-f]{40}", state["commit"]) and state["dirty"] is False
    file.write_text("2")
    assert git_state(str(file)) == {**state, "dirty": True}
