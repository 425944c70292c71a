"""What a run writes to the terminal and to its files, for each architecture."""

import argparse
import logging
import re

import pytest
from detectron2.utils.events import EventStorage

from libra_d2.engine import LibraTrainer, setup
from libra_d2.engine.console import _LONG, WIDTH, _LongTexts, setup_logging, wrapped
from libra_d2.engine.writers import TrainingLines, short_name

from ..support.coco_files import write_dataset
from ..support.train_net_runs import SMALL, on_data

LOSSES = {
    "faster": "loss_cls loss_box_reg loss_rpn_cls loss_rpn_loc",
    "mask": "loss_cls loss_box_reg loss_mask loss_rpn_cls loss_rpn_loc",
    "retinanet": "loss_cls loss_box_reg",
    "cascade": " ".join(
        [f"loss_{k}_stage{i}" for i in range(3) for k in ("cls", "box_reg")]
        + ["loss_mask", "loss_rpn_cls", "loss_rpn_loc"]
    ),
}


@pytest.fixture
def training(tmp_path):
    """A training run of three iterations without evaluation."""
    options = on_data(write_dataset(tmp_path / "data"))
    opts = [*options[2:], *SMALL, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", tmp_path / "out"]
    opts += ["SOLVER.MAX_ITER", 3, "SOLVER.STEPS", "(2,)"]
    args = argparse.Namespace(config_file=options[1], eval_only=False, opts=[str(o) for o in opts])

    def run():
        trainer = LibraTrainer(setup(args))
        trainer.resume_or_load(False)
        trainer.train()
        return tmp_path / "out"

    return run


@pytest.mark.slow
def test_a_training_from_its_first_to_its_last_line(training, capsys):
    """The start is short, long texts are in files, and the end suggests commands."""
    out = training()
    shown = capsys.readouterr().out
    assert "\x1b" not in shown  # colours are for terminals
    lines = shown.splitlines()
    first = next(i for i, line in enumerate(lines) if "total_loss" in line)
    assert first <= 60, "\n".join(lines[:first])
    for absent in ("GeneralizedRCNN(", "Environment info", "CUDNN_BENCHMARK", "Serializ"):
        assert absent not in shown
    assert "Detectron2" in lines[0] and "torch" in lines[0]
    assert "Schedule: 3 iterations" in shown and f"Files in {out}" in shown
    trained = [line for line in lines if "total_loss" in line]
    assert trained and all(len(line) <= WIDTH for line in trained)
    assert "3/3" in trained[-1] and re.search(r"lr \d", trained[-1])

    assert "GeneralizedRCNN(" in (out / "model.txt").read_text()
    assert "PyTorch" in (out / "environment.txt").read_text()
    assert (out / "weights.txt").read_text().count("\n") > 100
    assert "BASE_LR" in (out / "config.yaml").read_text()
    log = (out / "log.txt").read_text()
    assert "\x1b" not in log and "Serializing" in log and "total_loss" in log

    end = lines[max(i for i, line in enumerate(lines) if "total_loss" in line) :]
    end = "\n".join(end)
    assert "bbox/AP " in end and str(out / "model_final.pth") in end
    for command in ("analyze", "evaluate", "infer"):
        assert f"libra-d2 {command} " in end


@pytest.mark.parametrize("kind", LOSSES)
def test_training_lines_fit(kind, tmp_path, capsys):
    """Nothing is dropped: total_loss is on the first line, and every loss is on one of them."""
    setup_logging(str(tmp_path))
    names = LOSSES[kind].split()
    with EventStorage(123455) as storage:
        storage.put_scalars(total_loss=123.456789, **dict.fromkeys(names, 0.123456))
        storage.put_scalars(time=1.2345, data_time=0.98, lr=1.2345e-5, smoothing_hint=False)
        TrainingLines(max_iter=270000).write()
        assert storage.latest()["eta_seconds"][0] > 0  # metrics.json has it
    for text in (capsys.readouterr().out, (tmp_path / "log.txt").read_text()):
        lines = text.splitlines()
        assert all(len(line) <= WIDTH for line in lines)
        assert "total_loss 123.457" in lines[0] and "123456/270000" in lines[0]
        for name in names:
            assert f" {short_name(name)} 0.123" in text
        assert all(part in text for part in ("lr 1.23e-05", "1.23 s/it", "data 0.98 s", "eta "))
    assert len({short_name(name) for name in names}) == len(names)


def test_fields_are_not_broken():
    assert wrapped(["a 1", "bb 2", "c 3"], 9) == "a 1  bb 2\nc 3"


def test_a_second_run_writes_each_line_once_and_in_its_own_file(tmp_path, capsys):
    logger = logging.getLogger("libra_d2.engine.a")
    setup_logging(str(tmp_path / "first"))
    logger.info("one")
    setup_logging(str(tmp_path / "second"))
    logger.warning("two \x1b[31mred\x1b[0m")
    out = capsys.readouterr().out
    assert out.count("two") == 1 and "WARNING: two red" in out
    assert "two" not in (tmp_path / "first" / "log.txt").read_text()
    assert "two red" in (tmp_path / "second" / "log.txt").read_text()


def test_other_processes_write_to_files_of_their_own(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("libra_d2.engine.console.comm.get_rank", lambda: 1)
    setup_logging(str(tmp_path))
    logging.getLogger("libra_d2").info("of the second process")
    assert capsys.readouterr().out == ""
    assert "of the second process" in (tmp_path / "log.txt.rank1").read_text()
    assert not (tmp_path / "log.txt").exists()


def test_long_texts_stay_in_the_log_if_the_folder_of_their_run_was_deleted(tmp_path):
    """A later model of the same process can still be built and printed."""
    long_texts = _LongTexts(str(tmp_path / "deleted"), replace=True)
    text = next(iter(_LONG))
    record = logging.LogRecord("libra_d2", logging.INFO, "", 0, text + "...", (), None)
    assert long_texts.filter(record)
    (tmp_path / "deleted").mkdir()
    assert not long_texts.filter(record)
    assert (tmp_path / "deleted" / _LONG[text]).exists()
