import json

import pytest

from libra_d2.utils.metrics_file import read_metrics


def read(path, *records):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records))
    return read_metrics(str(path))


def test_a_resumed_run_replaces_its_later_iterations(tmp_path):
    found = read(
        tmp_path / "metrics.json",
        *({"iteration": i, "x": n} for n, i in enumerate((19, 39, 59, 39, 59, 79))),
    )
    assert [(r["iteration"], r["x"]) for r in found] == [(19, 0), (39, 3), (59, 4), (79, 5)]


def test_two_lines_of_one_iteration_are_one_record(tmp_path):
    found = read(
        tmp_path / "metrics.json",
        {"iteration": 19, "total_loss": 2, "lr": 1},
        {"iteration": 19, "total_loss": 1, "bbox/AP": 5},
    )
    assert found == [{"iteration": 19, "total_loss": 1, "lr": 1, "bbox/AP": 5}]


def test_broken_lines_are_skipped(tmp_path):
    good = {"iteration": 19, "x": 1}
    odd = ["{", "[" * 10_000, "3", "[]", '{"x": 1}', '{"iteration": "39"}', '{"iteration": true}']
    assert read(tmp_path / "metrics.json", *odd, good, "\ufffd", '{"iteration": 3') == [good]
    assert read(tmp_path / "empty.json") == []
    with pytest.raises(OSError):
        read_metrics(str(tmp_path / "none.json"))
