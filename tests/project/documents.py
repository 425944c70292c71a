"""The documents of the project, and the code and the commands in them."""

import re
import shlex
from pathlib import Path
from typing import List

from ..support.project import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_FENCED = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:^|\n)\n((?: {4}.*\n|\n)+)")
_INLINE = re.compile(r"`([^`]+)`")
_PROGRAM = re.compile(
    r"^(?:\$ )?(?:\w+=\S+ )*(?:\S*bin/)?(?:pythonw? )?(libra-d2|train_net\.py|torchrun|make)\b"
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_blocks(text: str) -> List[str]:
    """Fenced and indented blocks, without their indentation."""
    blocks = [m[1] for m in _FENCED.finditer(text)]
    indented = _INDENTED.findall(_FENCED.sub("\n", text) + "\n")
    return blocks + [re.sub("^ {4}", "", block, flags=re.MULTILINE) for block in indented]


def inline_code(text: str) -> List[str]:
    return [re.sub(r"\s+", " ", code) for code in _INLINE.findall(_FENCED.sub("", text))]


def commands(text: str) -> List[List[str]]:
    """Words of each command that runs libra-d2, train_net.py, torchrun or make, in any code."""
    found = []
    lines = [
        line.strip()
        for block in code_blocks(text)
        for line in re.sub(r"\\\n\s*", "", block).splitlines()
    ]
    for line in [*lines, *inline_code(text)]:
        match = _PROGRAM.match(line)
        if match:
            found.append(words(line[match.start(1) :]))
    return found


def words(line: str) -> List[str]:
    """As the shell splits them, without a comment, and of each alternative in a pipe the first."""
    try:
        return shlex.split(re.split(r" [|;>]| && ", line)[0], comments=True)
    except ValueError:  # a quotation mark that is not closed, as in a shortened command
        return line.split()
