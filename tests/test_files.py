import os

import pytest

from libra_d2.files import remove_partial, replacing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(str(path)) as partial:
        with open(partial, "w") as f:
            f.write("half")
        assert path.read_text() == "old"
        _ = 1 / 0
    assert path.read_text() == "old"
    with replacing(str(path)) as partial, open(partial, "w") as f:
        f.write("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    folder = tmp_path / "run [1]"  # no pattern
    folder.mkdir()
    for name in ("model.pth.partial123", "model.pth", "partial", "x.partial"):
        (folder / name).write_text("")
    remove_partial(str(folder))
    assert sorted(os.listdir(folder)) == ["model.pth", "partial", "x.partial"]
