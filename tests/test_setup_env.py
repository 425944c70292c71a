"""The set-up script, without its downloads."""

import re
import subprocess
import sys

import pytest

from .support.project import ROOT, load_tool


@pytest.fixture
def setup_env(monkeypatch, tmp_path):
    module = load_tool("setup_env")
    module.calls = []
    monkeypatch.setattr(
        module, "make_venv", lambda path, clear: module.calls.append(clear) or sys.executable
    )
    monkeypatch.setattr(module, "pip_install", lambda python, *args: module.calls.append(args))
    monkeypatch.setattr(
        module, "install_detectron2", lambda python: module.calls.append("detectron2")
    )
    (tmp_path / "venv").mkdir()

    def run(*args):
        module.calls.clear()
        monkeypatch.setattr(sys, "argv", ["setup_env.py", "--venv", str(tmp_path / "venv"), *args])
        module.main()
        return list(module.calls)

    module.run_main = run
    return module


def test_installs_once_and_again_when_requirements_change(setup_env, monkeypatch):
    assert "detectron2" in setup_env.run_main()
    assert setup_env.run_main() == []
    assert setup_env.run_main("--replace") == []  # the same interpreter
    monkeypatch.setattr(setup_env, "requirements_hash", lambda: "changed")
    calls = setup_env.run_main()
    assert calls[0] is False and "detectron2" in calls  # into the same environment
    assert setup_env.run_main() == []


def test_another_interpreter_replaces_the_environment_when_asked(setup_env, monkeypatch):
    setup_env.run_main()
    monkeypatch.setattr(setup_env.sys, "version_info", (3, 99, 0))
    assert setup_env.run_main() == []
    assert setup_env.run_main("--replace")[0] is True


def test_old_python_is_told(setup_env, monkeypatch):
    monkeypatch.setattr(setup_env.sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit, match=r"3\.10 or newer.*make setup PYTHON="):
        setup_env.run_main()


def test_failure_of_pip_ends_the_set_up(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tools'); import setup_env; "
        "setup_env.pip_install(sys.executable, '--no-index', 'no-such-package-at-all')"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1 and "setup failed: pip could not install" in run.stderr


def test_detectron2_is_pinned_by_hash():
    text = (ROOT / "requirements-detectron2.txt").read_text()
    assert re.search(r"==[\d.]+ \\\n +--hash=sha256:[0-9a-f]{64}\n", text)


def test_nothing_in_install_requires_replaces_torch_or_detectron2():
    """`pip install -e .` in an environment that has them must leave them alone."""
    text = (ROOT / "setup.py").read_text()
    required = text[text.index("INSTALL_REQUIRES") : text.index("EXTRAS_REQUIRE")]
    assert not re.search(r'"(torch|torchvision|detectron2|sal-detectron2)\b', required)
