"""Workflows, hooks and templates: what they run must exist."""

import re
import subprocess
from typing import Iterator, List

import pytest
import yaml

from .documents import DOCUMENTS, ROOT, commands, name_of

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def make_targets() -> List[str]:
    return re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE)


def steps_of(workflow: dict) -> Iterator[dict]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_a_workflow_is_complete(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["name"] == path.stem
    assert workflow[True]  # "on", which YAML 1.1 reads as a boolean
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_the_targets_that_a_workflow_makes_exist(path):
    runs = [step.get("run", "") for step in steps_of(yaml.safe_load(path.read_text()))]
    targets = [t for run in runs for t in re.findall(r"^make (\S+)", run, re.MULTILINE)]
    assert targets and set(targets) <= set(make_targets())


def test_the_oldest_and_a_new_python_are_tested():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    versions = workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert versions == ["3.10", "3.13"]  # texts: 3.10 as a number is 3.1
    assert 'python_requires=">=3.10"' in (ROOT / "setup.py").read_text()


def test_each_python_runs_all_tests_once_and_one_prints_the_coverage():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    runs = {s["run"]: s.get("if") for s in steps_of(workflow) if "run" in s}
    assert runs == {
        "make test": "matrix.python != '3.13'",
        "make coverage": "matrix.python == '3.13'",
    }


def test_coverage_runs_the_same_tests():
    recipe = re.compile(r"^(test|coverage): (.+)\n\t@(.+)$", re.MULTILINE)
    found = {name: (needs, line) for name, needs, line in recipe.findall(MAKEFILE)}
    needs, line = found["test"]
    assert found["coverage"][0] == needs
    assert found["coverage"][1] == f"{line} --cov libra_d2 --cov-report term:skip-covered"


def test_quick_runs_tests_of_every_package():
    listing = subprocess.run(["make", "-n", "quick"], cwd=ROOT, capture_output=True, text=True)
    line = next(line for line in listing.stdout.splitlines() if "pytest" in line)
    assert "not slow and not browser" in line
    paths = [word for word in line.split() if word.startswith("tests/")]
    assert paths and all((ROOT / path).exists() for path in paths)
    packages = {path.parent.name for path in ROOT.glob("libra_d2/*/__init__.py")}
    assert "experiments" in packages and packages <= {path.split("/")[1] for path in paths}


def test_the_hooks_run_what_the_workflow_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    assert "make lint" in entries
    assert {e.partition("make ")[2] for e in entries} <= set(make_targets())
    assert all(repo["repo"] == "local" for repo in hooks["repos"])


def test_the_targets_that_documents_name_exist():
    targets = set(make_targets())
    for path in DOCUMENTS:
        for command in commands(path.read_text()):
            if command[0] == "make" and len(command) > 1:
                assert command[1] in targets, f"{name_of(path)}: {' '.join(command)}"


def test_every_target_is_phony_and_the_first_one_helps():
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split()
    assert set(phony) == set(make_targets()) and make_targets()[0] == "help"


@pytest.mark.parametrize("path", FORMS, ids=lambda p: p.name)
def test_a_form_for_issues_is_complete(path):
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert form["blank_issues_enabled"] is True
        return
    assert form["name"] and form["description"]
    for item in form["body"]:
        assert item["type"] == "textarea" and item["attributes"]["label"]
