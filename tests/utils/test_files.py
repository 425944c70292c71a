import os
import re
import stat
import subprocess
import sys

import pytest

from libra_d2.errors import UserError
from libra_d2.utils.files import check_outputs, remove_partial, replacing

DIGITS = "0123456789abcdef" * 2


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


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_file_has_the_permissions_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "a") as partial, open(partial, "w") as f:
            f.write("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o666 & ~umask


def test_names_of_partial_files_are_of_no_process(tmp_path):
    """Containers that share a volume may have equal process ids, but must write different files."""
    with replacing(tmp_path / "a") as first, replacing(tmp_path / "a") as second:
        assert first != second and str(os.getpid()) not in re.sub(r"[0-9a-f]{32}", "", first)
        with open(first, "w") as a, open(second, "w") as b:
            a.write("first")
            b.write("second")
    assert (tmp_path / "a").read_text() == "first" and os.listdir(tmp_path) == ["a"]


def test_long_names_suffixes_and_names_that_are_no_text(tmp_path):
    for name in ("x" * 255, "é" * 127, os.fsdecode(b"\xff" * 255)):
        with replacing(tmp_path / name, suffix=".mp4") as partial:
            assert partial.endswith(".libra-partial.mp4")
        assert os.listdir(tmp_path) == [name]
        os.remove(tmp_path / name)


def test_devices_pipes_and_folders_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    os.symlink("pipe", tmp_path / "link")
    for path in (tmp_path / "pipe", tmp_path / "folder", tmp_path / "link", "/dev/null"):
        with pytest.raises(UserError, match="folder, pipe or device"), replacing(path):
            pass
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "pipe"]


def test_links_that_lead_nowhere_and_in_circles(tmp_path):
    os.symlink("nowhere", tmp_path / "dangling")
    os.symlink("circle", tmp_path / "circle")
    with replacing(tmp_path / "dangling"):
        pass
    assert (tmp_path / "dangling").is_file() and not (tmp_path / "nowhere").exists()
    message = r"circle cannot be written: .*lead in a circle"
    with pytest.raises(UserError, match=message), replacing(tmp_path / "circle"):
        pass


def test_the_writers_own_mistakes_are_not_the_disks(tmp_path):
    for error in (RuntimeError("of the writer"), OSError(2, "No such file", "input.json")):
        with pytest.raises(type(error)) as e, replacing(tmp_path / "a"):
            raise error
        assert e.value is error
    assert os.listdir(tmp_path) == []


def test_only_what_a_killed_process_left_is_removed(tmp_path):
    folder = tmp_path / "run [1]"  # no pattern
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", folder / "linked")
    ours = [f"a.pth.{DIGITS}.libra-partial", f"v.mp4.{DIGITS}.libra-partial.mp4"]
    others = ["thesis.partial2.txt", "model.pth.partial123", "model.pth", "x.libra-partial"]
    others += [f"{DIGITS}.libra-partial", f"a.{DIGITS[1:]}.libra-partial", f"a.{DIGITS}.partial"]
    places = (folder, folder / "sub", tmp_path / "elsewhere")
    for place in places:
        for name in ours + others:
            (place / name).write_text("")
    kill = "import os, sys; from libra_d2.utils.files import replacing\n"
    kill += "with replacing(sys.argv[1]) as p: print(p, flush=True); os._exit(1)"
    code = "import sys, types; p = types.ModuleType('libra_d2'); p.__path__ = [sys.argv[2]]\n"
    code += f"sys.modules['libra_d2'] = p\n{kill}"  # without torch
    package = os.path.dirname(sys.modules["libra_d2"].__file__)
    command = [sys.executable, "-c", code, str(folder / "b.json"), package]
    left = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    assert os.path.exists(left)
    with replacing(folder / "sub/c.json") as written:
        remove_partial(str(folder))
        assert not os.path.exists(left) and not (folder / ours[0]).exists()
        assert (folder / "sub" / ours[0]).exists()  # asked for this folder alone
        remove_partial(str(folder), recursive=True)
        assert os.path.exists(written)
    for place in places[:2]:
        assert not any((place / name).exists() for name in ours)
        assert all((place / name).exists() for name in others)
    assert (tmp_path / "elsewhere" / ours[0]).exists()


def test_without_locks_age_decides(tmp_path, monkeypatch):
    monkeypatch.setattr("libra_d2.utils.files.fcntl", None)
    fresh, old = (tmp_path / f"{name}.{DIGITS}.libra-partial" for name in ("fresh", "old"))
    for path in (fresh, old):
        path.write_text("")
    os.utime(old, (0, 0))
    with replacing(tmp_path / "a"):
        remove_partial(tmp_path)
    assert fresh.exists() and not old.exists() and (tmp_path / "a").exists()


def test_no_output_is_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_text("")
    os.symlink("a", "link")
    os.symlink("sub", "folder")
    os.link("a", "hard")
    os.symlink("sub/new", "dangling")
    check_outputs({"--output": "b", "--csv": ["sub/a", ""]}, {"the input": "a", "none": None})
    for path in ("a", "./a", "sub/../a", "link", "folder/../a", "hard", str(tmp_path / "a")):
        with pytest.raises(UserError, match=rf"--output {path} would replace the input a: name"):
            check_outputs({"--output": path}, {"the input": ["x", "a"]})
    for path in ("sub/new", "dangling", "folder/new"):
        with pytest.raises(UserError, match=r"would replace --output sub/new"):
            check_outputs({"--output": "sub/new", "--csv": path}, {})


def test_what_is_left_beside_outputs_is_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for folder in (".", "sub"):
        (tmp_path / folder / f"a.{DIGITS}.libra-partial").write_text("")
    check_outputs({"--output": "x"}, {})
    assert sorted(os.listdir()) == ["sub"]
    check_outputs({"--output": ["sub/x", "none/x"]}, {})
    assert os.listdir("sub") == []


def test_a_file_system_that_ignores_case(tmp_path, monkeypatch):
    """The system says that both names are one file. The test replaces `os.stat` to do the same."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text("")
    stat_of = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **k: stat_of(str(path).lower(), **k))
    with pytest.raises(UserError, match=r"--output A.JSON would replace the input a.json"):
        check_outputs({"--output": "A.JSON"}, {"the input": "a.json"})
