import json

from detectron2.utils.events import EventStorage

from libra_d2.engine.writers import MetricsFile, cut_metrics


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_cut_off_behind_an_iteration(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("".join(json.dumps({"iteration": i}) + "\n" for i in (19, 39, 59)))
    assert cut_metrics(str(path), 58) == 39
    assert lines(path) == [{"iteration": 19}, {"iteration": 39}]
    assert cut_metrics(str(path), 39) == 39
    assert cut_metrics(str(path), 3) == -1 and path.read_text() == ""


def test_a_line_that_a_kill_cut_short_goes(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 19}\n{"iterat')
    assert cut_metrics(str(path), 100) == 19
    assert path.read_text() == '{"iteration": 19}\n'


def test_a_resumed_run_writes_on_without_repeating(tmp_path):
    """The storage of a resumed run holds the scalars of earlier iterations again."""
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 4, "a": 1.0}\n{"iteration": 9, "a": 1.0}\n')
    writer = MetricsFile(str(path))
    writer.resume_after(5)
    with EventStorage(6) as storage:
        storage.put_scalar("a", 1.0, smoothing_hint=False, cur_iter=4)
        storage.put_scalar("AP", 7.0, smoothing_hint=False, cur_iter=5)  # not yet written then
        storage.put_scalar("loss", 2.0, smoothing_hint=False, cur_iter=6)
        writer.write()
    writer.close()
    assert lines(path) == [
        {"iteration": 4, "a": 1.0},
        {"iteration": 5, "AP": 7.0},
        {"iteration": 6, "loss": 2.0},
    ]
