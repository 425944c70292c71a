"""What a release consists of, and whether its files agree with each other."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
import yaml

from libra_d2 import __version__

from .documents import ROOT


def build(kind, copy):
    """Build in a copy, since setuptools leaves its own files in the folder."""
    code = f"from setuptools.build_meta import build_{kind} as build; build('.')"
    run = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    copy = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "MANIFEST.in"):
        shutil.copy(ROOT / name, copy)
    shutil.copy(ROOT / "libra_d2_launcher.py", copy)
    shutil.copytree(ROOT / "libra_d2", copy / "libra_d2")
    build("wheel", copy)
    with zipfile.ZipFile(next(copy.glob("*.whl"))) as archive:
        yield archive


def test_the_wheel_has_every_file_of_the_package(wheel):
    """Such as py.typed, without which type checkers take the package for untyped."""
    package = ROOT / "libra_d2"
    files = {
        p.relative_to(ROOT).as_posix()
        for p in package.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert "libra_d2/py.typed" in files
    assert files == {n for n in wheel.namelist() if n.startswith("libra_d2/")}


def test_the_wheel_says_what_it_is(wheel):
    name = next(n for n in wheel.namelist() if n.endswith("METADATA"))
    metadata = wheel.read(name).decode()
    assert f"Version: {__version__}\n" in metadata
    assert "Apache-2.0" in metadata and "Requires-Python: >=3.10" in metadata
    assert "Typing :: Typed" in metadata
    licenses = [n.rpartition("/")[2] for n in wheel.namelist() if ".dist-info/" in n]
    assert {"LICENSE", "NOTICE"} <= set(licenses)


def test_the_source_distribution_has_every_file_that_is_not_hidden(tmp_path):
    """`make demo` and `make test` must work in it, too."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: nothing says which files belong to the project")
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = {f for f in listing.stdout.splitlines() if not f.startswith(".")}
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    build("sdist", tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        assert files <= {name.partition("/")[2] for name in archive.getnames()}


def test_the_licence_is_the_whole_apache_license():
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    for section in range(1, 10):
        assert f"\n   {section}. " in text


def test_the_citation_is_of_this_version_and_of_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    assert citation["version"] == __version__
    paper = citation["preferred-citation"]
    assert paper["authors"][0]["family-names"] == "Pang" and paper["year"] == 2019


def test_the_changelog_has_this_version_and_the_newest_first():
    text = (ROOT / "CHANGELOG.md").read_text()
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", text, re.MULTILINE)
    assert __version__ in releases and "## [Unreleased]" in text
    as_numbers = [tuple(map(int, r.split("."))) for r in releases]
    assert as_numbers == sorted(as_numbers, reverse=True)
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_small_installation_of_a_server_takes_the_ranges_of_setup_py():
    wanted = [
        line
        for line in (ROOT / "requirements-serve.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    setup = (ROOT / "setup.py").read_text()
    assert [line for line in wanted if f'"{line}"' not in setup] == []
    extra = re.search(r"^SERVE = \[(.*?)^\]", setup, re.MULTILINE | re.DOTALL)[1]
    assert set(re.findall(r'"(.+?)",', extra)) <= set(wanted)
