"""Getting the browser, without its download."""

import pytest

from .support.project import load_tool


@pytest.fixture
def setup_browser(monkeypatch, tmp_path):
    module = load_tool("setup_browser")
    module.calls = []
    module.found = {"apt-get", "sudo"}
    module.status = 0

    def run(command, **_):
        module.calls.append(command)
        if "install" in command and not module.status:
            module.found.add("chromium")
        return type("Done", (), {"returncode": module.status})

    def on(distribution):
        module.OS_RELEASE = tmp_path / "os-release"
        module.OS_RELEASE.write_text(f'NAME="x"\n\nID="{distribution}"\n')

    monkeypatch.setattr(module.shutil, "which", lambda name: name if name in module.found else None)
    monkeypatch.setattr(module.subprocess, "run", run)
    module.on = on
    on("debian")
    return module


@pytest.mark.parametrize("user, prefix", [(0, []), (1000, ["sudo", "-n"])])
def test_installs_once_on_debian(setup_browser, monkeypatch, user, prefix):
    monkeypatch.setattr(setup_browser.os, "geteuid", lambda: user)
    setup_browser.main()
    assert [c[: len(prefix) + 2] for c in setup_browser.calls] == [
        [*prefix, "apt-get", "update"],
        [*prefix, "apt-get", "install"],
    ]
    setup_browser.main()
    assert len(setup_browser.calls) == 2


def test_says_what_to_install_where_it_cannot(setup_browser, monkeypatch):
    monkeypatch.setattr(setup_browser.os, "geteuid", lambda: 1000)
    for distribution, without, message in (
        ("ubuntu", "", "snap install chromium"),
        ("fedora", "", "install one of chromium"),
        ("debian", "apt-get", "install one of chromium"),
        ("debian", "sudo", "run `apt-get install chromium` as root"),
    ):
        setup_browser.on(distribution)
        setup_browser.found = {"apt-get", "sudo"} - {without}
        with pytest.raises(SystemExit, match=message):
            setup_browser.main()
    assert setup_browser.calls == []


def test_a_failing_installation_is_told(setup_browser, monkeypatch):
    monkeypatch.setattr(setup_browser.os, "geteuid", lambda: 0)
    setup_browser.status = 100
    with pytest.raises(
        SystemExit, match=r"could not install Chromium\. Run `apt-get install .* as root"
    ):
        setup_browser.main()
