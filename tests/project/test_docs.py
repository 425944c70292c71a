"""What the documents name must exist: links, files, commands with their options, config keys."""

import argparse
import ast
import importlib
import re
import subprocess
import sys
from typing import Dict, Iterator, Set, Tuple

import pytest
import yaml
from detectron2.config import CfgNode, get_cfg

from libra_d2 import add_libra_config
from libra_d2.cli.main import COMMANDS
from libra_d2.config.loading import is_key
from libra_d2.engine import default_argument_parser

from ..support.project import load_tool
from .documents import DOCUMENTS, ROOT, code_blocks, commands, inline_code, name_of

ids = {"ids": name_of}
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_KEY = r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*"
_DOTTED_KEY = re.compile(rf"{_KEY}(?:\.{_KEY})+")
_FILE = re.compile(
    r"(?<![\w/.~-])(?<!Detectron2's `)"
    r"((?:configs|benchmarks|docs|examples|libra_d2|tests|tools)/[\w/.-]*\w\.\w+)"
)


# Links ---------------------------------------------------------------------------------------


def anchors(text: str) -> Set[str]:
    """Of the headings, as GitHub and mkdocs make them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", h.replace("`", "")).strip().lower() for h in headings]
    return {re.sub(r"\s+", "-", h) for h in plain}


@pytest.mark.parametrize("path", DOCUMENTS, **ids)
def test_links_lead_somewhere(path):
    for link in _LINK.findall(path.read_text()):
        if re.match(r"https?://", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{link} is not there"
        assert file.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(file.read_text()), f"{link}: no such heading"


def test_the_links_of_the_site_stay_in_the_site():
    for path in (ROOT / "docs").rglob("*.md"):
        for link in _LINK.findall(path.read_text()):
            assert not link.startswith(("../", "/")), f"{name_of(path)}: {link}"


def test_the_navigation_has_every_page_once():
    def pages(entries) -> Iterator[str]:
        for entry in entries:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else pages(value)

    nav = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    docs = ROOT / "docs"
    assert sorted(nav) == sorted(p.relative_to(docs).as_posix() for p in docs.rglob("*.md"))


@pytest.mark.parametrize("path", DOCUMENTS, **ids)
def test_files_of_the_project_that_are_named_exist(path):
    for file in _FILE.findall(path.read_text()):
        assert (ROOT / file).exists(), file


def test_every_config_is_named_in_the_documents():
    text = "".join(path.read_text() for path in DOCUMENTS)
    for config in (ROOT / "configs").glob("[a-z]*.yaml"):  # not of a base
        assert re.search(rf"\b{config.stem}\b", text), config


# Commands and keys ---------------------------------------------------------------------------


def options_of(parser: argparse.ArgumentParser) -> Set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def parsers() -> Dict[str, argparse.ArgumentParser]:
    found = {"train_net.py": default_argument_parser()}
    for name, module in COMMANDS.items():
        found[name] = argparse.ArgumentParser()
        module.add_arguments(found[name])
    return found


def defaults() -> CfgNode:
    cfg = get_cfg()
    add_libra_config(cfg)
    return cfg


def unknown_in(command, known: Dict[str, argparse.ArgumentParser], cfg: CfgNode) -> Iterator[str]:
    """What a command of a document names and the project does not have."""
    program, *args = command
    if program == "torchrun":
        args = args[args.index("train_net.py") + 1 :] if "train_net.py" in args else []
        program = "train_net.py"
    elif program == "libra-d2":
        if not args or args[0].startswith("-"):
            return
        program, *args = args
    if program == "make" or program in ("COMMAND", "<command>"):
        return
    if program not in known:
        yield program
        return
    options = options_of(known[program])
    for arg in args:
        if arg.startswith("--") and arg.partition("=")[0] not in options:
            yield arg
        if re.fullmatch(rf"{_KEY}(\.{_KEY})+", arg) and not is_key(cfg, arg):
            yield arg


@pytest.mark.parametrize("path", DOCUMENTS, **ids)
def test_commands_have_the_options_and_keys_that_documents_give_them(path):
    known, cfg = parsers(), defaults()
    for command in commands(path.read_text()):
        unknown = list(unknown_in(command, known, cfg))
        assert not unknown, f"{' '.join(command)}: {unknown}"


@pytest.mark.parametrize(
    "command, unknown",
    [
        ("libra-d2 infer images --model m --draw d", []),
        ("libra-d2 infr images", ["infr"]),
        ("libra-d2 infer images --modle m", ["--modle"]),
        ("libra-d2 evaluate --model m --opts TEST.NSM.TYPE linear", ["TEST.NSM.TYPE"]),
        ("train_net.py --config-file a --num-gpu 4", ["--num-gpu"]),
        ("train_net.py --config-file a SOLVER.MAX_ITERS 4", ["SOLVER.MAX_ITERS"]),
        ("torchrun --standalone train_net.py --resum", ["--resum"]),
    ],
)
def test_a_wrong_name_in_a_command_is_found(command, unknown):
    assert list(unknown_in(command.split(), parsers(), defaults())) == unknown


def test_commands_are_found_in_all_kinds_of_code():
    text = """
    $ libra-d2 doctor
    OMP_NUM_THREADS=1 python train_net.py --config-file a \\
        KEY "(1, 2)"  # a comment

```text
.venv/bin/libra-d2 draw
```
Also `make demo`, and `python train_net.py --resume`, but not a libra-d2 of the text.
"""
    assert sorted(commands(text)) == [
        ["libra-d2", "doctor"],
        ["libra-d2", "draw"],
        ["make", "demo"],
        ["train_net.py", "--config-file", "a", "KEY", "(1, 2)"],
        ["train_net.py", "--resume"],
    ]


def dotted_keys(text: str) -> Iterator[Tuple[str, str]]:
    """Whole keys in code: `A.B`, and A.B and A.C of `A.{B,C}`, with the code that they are in."""
    for code in [*code_blocks(text), *inline_code(text)]:
        code = re.sub(r"https?://\S+", "", code)
        while match := re.search(r"([\w.]+)\.\{([\w, ]+)\}", code):
            keys = " ".join(f"{match[1]}.{k.strip()}" for k in match[2].split(","))
            code = code[: match.start()] + keys + code[match.end() :]
        for found in _DOTTED_KEY.finditer(code):
            before, after = code[: found.start()][-1:], code[found.end() :][:1]
            if not re.match(r"[\w./{$-]", before) and not re.match(r"[\w/{-]", after):
                yield found[0], code


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if p.name != "CHANGELOG.md"], **ids)
def test_config_keys_that_documents_name_exist(path):
    cfg = defaults()
    tops = {key for key in cfg if isinstance(cfg[key], CfgNode)}
    for key, code in dotted_keys(path.read_text()):
        if key.partition(".")[0] in tops:
            assert is_key(cfg, key), f"{key} in {code.strip()[:200]}"


def test_a_wrong_key_is_found():
    text = (
        "`MODEL.BFP.{ENABLED,REFINE}`, `SOLVER.EMA_DECA`, not `SOLVER.md`\n\n    TEST.NMS.TYPO x\n"
    )
    missing = [key for key, _ in dotted_keys(text) if not is_key(defaults(), key)]
    assert missing == ["TEST.NMS.TYPO", "MODEL.BFP.REFINE", "SOLVER.EMA_DECA"]


# The site ------------------------------------------------------------------------------------


def test_the_page_of_keys_has_every_key_of_the_package():
    hooks = load_tool("docs_hooks")
    page = hooks.on_page_markdown((ROOT / "docs/config_keys.md").read_text())
    upstream, ours = get_cfg(), defaults()

    def leaves(node: CfgNode, prefix: str = "") -> Iterator[str]:
        for key, value in node.items():
            if isinstance(value, CfgNode):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    added = set(leaves(ours)) - set(leaves(upstream))
    rows = dict(re.findall(r"^- `([A-Z0-9_.]+)`, default `([^`]+)`", page, re.MULTILINE))
    assert set(rows) == added
    assert rows["SOLVER.EMA_DECAY"] == "0.0" and rows["OUTPUT_BRIEF"] == '""'


def test_the_names_of_the_api_page_can_be_imported():
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert len(names) > 15
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__, name


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    command = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    run = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    api = (tmp_path / "site/api.html").read_text()
    assert "balanced_l1_loss" in api and "reduction" in api and ":func:" not in api
    assert "SOLVER.EMA_DECAY" in (tmp_path / "site/config_keys.html").read_text()


def test_defaults_of_detectron2s_keys_are_its_own():
    rows = re.findall(
        r"^\| `([A-Z_.]+)` \| `(.+?)` \|", (ROOT / "docs/config_keys.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 10
    for key, default in rows:
        value = defaults()
        for part in key.split("."):
            value = value[part]
        assert ast.literal_eval(default) == value, key
