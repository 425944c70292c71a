import json

from detectron2.utils.events import EventStorage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from libra_d2.engine.writers import MetricsFile, TensorBoardWriter, cut_metrics


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


def test_a_new_run_in_a_used_folder_keeps_the_old_metrics_apart(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 399}\n')
    writer = MetricsFile(str(path))
    writer.start_over()
    with EventStorage(3) as storage:
        storage.put_scalar("a", 1.0)
        writer.write()
    writer.close()
    assert lines(path) == [{"iteration": 3, "a": 1.0}]
    assert lines(tmp_path / "metrics_old.json") == [{"iteration": 399}]
    assert cut_metrics(str(path), 3) == 3


def test_tensorboard_gets_what_was_not_yet_written(tmp_path):
    """The run resumes after iteration 24, and the last regular write was that of 19."""
    writer = TensorBoardWriter(str(tmp_path))
    writer.resume_after(24)
    with EventStorage(24) as storage:
        storage.put_scalar("AP", 7.0, smoothing_hint=False)
        writer.write()
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("AP")] == [(24, 7.0)]


def test_a_resumed_run_writes_on_without_repeating(tmp_path):
    """The storage of a resumed run contains the scalars of earlier iterations again."""
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
