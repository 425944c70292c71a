import json

from PIL import Image

from libra_d2.visualization.loss_curve import save_loss_curve


def test_draws_a_resumed_run(tmp_path):
    records = [
        {"iteration": i, "total_loss": 1.0 / (i + 1), "loss_cls": 0.5, "lr": 0.01}
        for i in (19, 39, 59, 39, 59, 79)
    ]
    records.append({"iteration": 79, "bbox/AP": 50.0})
    metrics = tmp_path / "metrics.json"
    metrics.write_text("\n".join(json.dumps(r) for r in records))
    assert save_loss_curve(str(metrics), str(tmp_path / "curve.png"))
    assert Image.open(tmp_path / "curve.png").size[0] > 500
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curve.png", "metrics.json"]


def test_nothing_to_draw(tmp_path):
    (tmp_path / "metrics.json").write_text("")
    assert not save_loss_curve(str(tmp_path / "metrics.json"), str(tmp_path / "curve.png"))
    assert not (tmp_path / "curve.png").exists()


def test_line_that_a_killed_run_left_half_written(tmp_path):
    good = json.dumps({"iteration": 19, "total_loss": 1.0, "lr": 0.01})
    (tmp_path / "metrics.json").write_text(good + "\n" + good[:20])
    assert save_loss_curve(str(tmp_path / "metrics.json"), str(tmp_path / "curve.png"))
