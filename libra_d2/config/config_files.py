"""Read local YAML config files, each with the files that it is based on."""

import os
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Tuple

from fvcore.common.config import BASE_KEY

from ..errors import UserError
from ..utils.local_paths import local_path
from ..utils.messages import printable, shown
from ..utils.yaml_files import read_yaml

MAX_BASES = 16  # nested levels of _BASE_


@dataclass(frozen=True)
class Setting:
    """A value in a config file. `key` is its full name, such as "SOLVER.MAX_ITER"."""

    key: str
    value: Any
    file: str


def read_config_file(path: str) -> List[Setting]:
    """
    Return the settings of a config file, after those of the files that its `_BASE_` names. A
    setting overrides those before it. A path in `_BASE_` is relative to the file that contains it;
    `~` is not expanded.

    Raises:
        UserError: a file is missing, is not valid YAML or not a mapping with string keys, or is
            based on itself.
    """
    return list(_settings(path, "the config", ()))


def _settings(path: str, what: str, above: Tuple[str, ...]) -> Iterator[Setting]:
    path = local_path(path, what)
    real = os.path.realpath(path)
    if real in above:
        raise UserError(
            f"{above[-1]}: {BASE_KEY} leads back to {printable(path)}, which is itself based on "
            f"this file. Remove one {BASE_KEY}"
        )
    if len(above) > MAX_BASES:
        raise UserError(
            f"{what}: configs must be nested by {BASE_KEY} to at most {MAX_BASES} levels, got more"
        )
    content = read_yaml(path, what="config file")
    if content is None:
        return
    if not isinstance(content, dict):
        raise UserError(
            f"config file {printable(path)} must have keys and values, such as `SOLVER:`, got "
            f"{shown(content)}"
        )
    bases = content.pop(BASE_KEY, [])
    for base in bases if isinstance(bases, list) else [bases]:
        name = f"{printable(path)}: {BASE_KEY}"
        if not isinstance(base, str) or not base:
            raise UserError(f"{name} must be a path, got {shown(base)}")
        base = os.path.join(os.path.dirname(path), local_path(base, name))
        yield from _settings(base, name, (*above, real))
    yield from _leaves(content, path)


def _leaves(node: Dict[Any, Any], path: str, prefix: str = "") -> Iterator[Setting]:
    for key, value in node.items():
        if not isinstance(key, str):
            where = f" in {prefix[:-1]}" if prefix else ""
            raise UserError(
                f"config file {printable(path)}: a key{where} must be a name, such as MAX_ITER, "
                f"got {shown(key)}"
            )
        if isinstance(value, dict) and value:
            yield from _leaves(value, path, f"{prefix}{key}.")
        else:
            yield Setting(prefix + key, value, path)
