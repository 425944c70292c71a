"""A plan, which is a list of settings with reasons, as a table and as a config file."""

import os
import textwrap
from typing import Any, Dict, List, NamedTuple, Sequence

import yaml
from detectron2.config import CfgNode
from tabulate import tabulate

from ..utils.files import make_folder_of, replacing
from .settings import Setting
from .training_set import TrainingSet

_WIDTH = 110


class PlannedSetting(NamedTuple):
    key: str
    base: Any
    value: Any
    why: str


class Plan(NamedTuple):
    """
    Attributes:
        data: the training set that the plan is for.
        cfg: the base config with all settings of the plan.
        given: settings of the user, which are kept.
        settings: settings that differ from the base config.
        notes: texts about what is not planned, and why.
    """

    data: TrainingSet
    cfg: CfgNode
    given: List[Setting]
    settings: List[PlannedSetting]
    notes: List[str]

    def table(self) -> str:
        """Return a table with one row for each setting, and the notes below it."""
        rows = [
            (s.key, _short(s.base), _short(s.value), textwrap.fill(s.why, 60))
            for s in self.settings
        ]
        table = tabulate(rows, headers=("key", "base", "planned", "why"), disable_numparse=True)
        notes = [textwrap.fill(f"note: {note}", _WIDTH) for note in self.notes]
        return "\n".join([table, *notes])

    def save(self, path: str, base_file: str) -> None:
        """Write the plan as a config file, whose `_BASE_` is the base config."""
        make_folder_of(path)
        base = os.path.relpath(base_file, os.path.dirname(os.path.abspath(path)))
        lines = [
            "# Planned by libra-d2 from the training set. The reason of each setting is above it.",
            f"_BASE_: {_yaml(base)}",
            *_nested([*self.given, *(Setting(s.key, s.value, s.why) for s in self.settings)]),
        ]
        with replacing(path) as partial, open(partial, "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")

    def options(self) -> List[str]:
        """Return the settings as `KEY VALUE` pairs."""
        return [text for s in self.settings for text in (s.key, str(s.value))]


def _short(value: Any) -> str:
    return textwrap.fill(_yaml(value), 30)


def _yaml(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _nested(settings: Sequence[Setting]) -> List[str]:
    """Return lines of YAML with a comment above each value."""
    tree: Dict[str, Any] = {}
    for setting in settings:
        *path, last = setting.key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = setting
    return _lines(tree, "")


def _lines(tree: Dict[str, Any], indent: str) -> List[str]:
    lines = []
    for name, node in tree.items():
        if isinstance(node, dict):
            lines += [f"{indent}{name}:", *_lines(node, indent + "  ")]
        else:
            start = f"{indent}# "
            lines += textwrap.wrap(node.why, 100, initial_indent=start, subsequent_indent=start)
            lines.append(f"{indent}{name}: {_yaml(node.value)}")
    return lines
