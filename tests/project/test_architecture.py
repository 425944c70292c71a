"""The walks of docs/architecture.md, by the source they name and the layers of pyproject.toml."""

import ast
import re

import pytest

from ..support.project import ROOT

STEP = re.compile(r"^( *)- `(libra_d2/[\w/]+\.py)`: `([\w.]+)`$")


def walks():
    text = (ROOT / "docs/architecture.md").read_text()
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    return [
        pytest.param(
            [STEP.match(line).groups() for line in s.splitlines() if "- `libra_d2/" in line],
            id=s.splitlines()[0],
        )
        for s in sections
    ]


def layers():
    """Package -> its number, 0 at the top."""
    text = (ROOT / "pyproject.toml").read_text()
    (listed,) = re.findall(r"^layers = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    lines = [re.split(r" [|:] ", line) for line in re.findall(r'"(.+)"', listed)]
    return {name: i for i, names in enumerate(lines) for name in names}


def defined(path):
    """Functions, classes and methods of a module."""
    ret = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            ret.add(node.name)
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef):
                ret.add(f"{node.name}.{inner.name}")
    return ret


def test_there_are_five_walks():
    assert len(walks()) == 5 and all(len(walk.values[0]) >= 8 for walk in walks())


@pytest.mark.parametrize("steps", walks())
def test_every_function_exists(steps):
    for _, path, name in steps:
        assert name in defined(path), f"{path} has no {name}"


@pytest.mark.parametrize("steps", walks())
def test_no_walk_climbs(steps):
    number = layers()
    callers = []  # layer of the function at each depth
    for indent, path, name in steps:
        depth, rest = divmod(len(indent), 4)
        assert rest == 0 and depth <= len(callers)
        own = number[path.split("/")[1].removesuffix(".py")]
        del callers[depth:]
        assert not callers or own >= callers[-1], f"{path}: {name} is above its caller"
        callers.append(own)


def test_the_layers_are_those_of_the_document():
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert set(named) == layers().keys() - {"version"}
    assert [layers()[name] for name in named] == sorted(layers()[name] for name in named)


def test_modules_are_as_long_as_one_reads_at_a_time():
    """Only what is one idea may be longer."""
    long = {
        str(path.relative_to(ROOT)): count
        for path in (ROOT / "libra_d2").rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert not long, f"split these: {long}"
