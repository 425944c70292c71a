import csv

import pytest

from libra_d2.predictions.reading import CSV_COLUMNS, read_predictions
from libra_d2.predictions.writing import _write_csv as write_predictions
from libra_d2.utils.csv_files import text_cells, without_mark, write_csv

FORMULAS = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "'=1", "''-2"]


@pytest.mark.parametrize("name", [*FORMULAS, "a=1", "'quoted'", "", "class 1"])
def test_no_name_is_a_formula_and_all_are_read_back(name):
    (cell,) = text_cells([name])
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert without_mark(cell) == name
    assert text_cells([-1.5, None, 3]) == [-1.5, None, 3]


def test_every_writer_of_csv_marks_them(tmp_path):
    """
    The files are those of results and of predictions, from which the same names are read again.
    """
    path = str(tmp_path / "a.csv")
    write_csv(path, [("class", "=head"), ("=1+1", -2)])
    with open(path, newline="") as f:
        assert list(csv.reader(f)) == [["class", "'=head"], ["'=1+1", "-2"]]
    box = dict(zip(CSV_COLUMNS[3:7], (1, 2, 3, 4)))
    of_class = {"label": 0, "category_id": 1, "name": "@x"}
    entry = {"height": 9, "width": 9, "predictions": [{"bbox": box, "class": of_class, "score": 1}]}
    with open(path, "w", newline="") as f:
        empty = {**entry, "predictions": []}
        write_predictions(f, iter([("=cmd.jpg", entry), ("-empty.jpg", empty)]))
    with open(path) as f:
        text = f.read()
    assert "'=cmd.jpg" in text and "\n=" not in text and ",@" not in text
    first, second = read_predictions(path)
    assert (first.file_name, first.class_names) == ("=cmd.jpg", ["@x"])
    assert second.file_name == "-empty.jpg"
