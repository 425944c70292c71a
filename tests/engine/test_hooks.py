import logging
from types import SimpleNamespace

from libra_d2.engine import load_cfg
from libra_d2.engine.hooks import BestCheckpointer, RunPictures


def pictures(tmp_path, last_iter=9):
    cfg = load_cfg("configs/demo.yaml", ["OUTPUT_DIR", str(tmp_path)])
    hook = RunPictures(cfg, str(tmp_path / "inference"))
    hook.trainer = SimpleNamespace(iter=last_iter, max_iter=10)
    hook.before_train()
    return hook


def test_a_failure_to_draw_does_not_end_a_finished_run(tmp_path, caplog, monkeypatch):
    (tmp_path / "metrics.json").write_text('{"iteration": 1, "total_loss": 1.0, "lr": 0.1}\n')
    monkeypatch.setattr("libra_d2.engine.hooks.save_loss_curve", lambda *paths: 1 / 0)
    pictures(tmp_path).after_train()
    assert "Could not draw" in caplog.text


def test_a_failed_run_is_not_drawn(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 1, "total_loss": 1.0, "lr": 0.1}\n')
    pictures(tmp_path, last_iter=4).after_train()
    assert not (tmp_path / "loss_curve.png").exists()


def test_predictions_of_an_earlier_run_are_not_drawn(tmp_path, caplog):
    (tmp_path / "inference").mkdir()
    (tmp_path / "inference/coco_instances_results.json").write_text("[]")
    hook = pictures(tmp_path)
    hook.start += 1000
    with caplog.at_level(logging.INFO):
        hook.after_train()
    assert not (tmp_path / "predictions.png").exists() and "Could not" not in caplog.text


def test_what_was_best_survives_a_resume():
    first, second = (BestCheckpointer(10, None, "bbox/AP") for _ in range(2))
    first.best_metric, first.best_iter = 41.5, 30
    second.load_state_dict(first.state_dict())
    assert (second.best_metric, second.best_iter) == (41.5, 30)
