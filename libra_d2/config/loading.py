"""From a config file and `KEY VALUE` pairs to a config, with all mistakes in keys and types."""

import ast
import difflib
import os
import shlex
from typing import Any, List, Optional, Sequence, Tuple

import torch
from detectron2.config import CfgNode, get_cfg

from ..errors import UserError
from ..utils.messages import printable, shown
from .checks import check_values
from .config_files import Setting, read_config_file
from .flattening import flat
from .keys import add_libra_config
from .removed_keys import replacement
from .user_modules import absolute_modules, import_modules, lies_with_weights, refuse_untrusted

# Names and descriptions of data sets: a single one needs no tuple around it.
_IN_TUPLES = ("DATASETS.TRAIN", "DATASETS.TEST")
COMMAND_LINE = "command line"


def load_cfg(
    config_file: str = "",
    opts: Sequence[str] = (),
    *,
    trust: Optional[bool] = None,
    purpose: str = "",
    world_size: int = 1,
    resume: bool = False,
) -> CfgNode:
    """
    Detectron2's config with libra_d2's keys, a file and `KEY VALUE` pairs merged into it.

    What `IMPORTS` names is imported. On a machine without CUDA, `MODEL.DEVICE` is "cpu" whatever
    the file says.

    Args:
        trust: whether `IMPORTS` of the file may run; None: if the file lies neither in the folder
            of a run nor beside weights. Those of `opts` may always.
        purpose: check the values, too, as far as this purpose needs them: see
            :func:`~libra_d2.config.checks.check_values`, also for `world_size` and `resume`.

    Raises:
        UserError: the file does not exist or is not YAML, keys are unknown (the message suggests
            similar ones) or have values of the wrong type, or that make no sense for the purpose.
            All of them are listed.
    """
    cfg = configured(
        config_file, opts, trust=trust, purpose=purpose, world_size=world_size, resume=resume
    )
    without_cuda(cfg)
    return cfg


def configured(
    config_file: str = "",
    opts: Sequence[str] = (),
    *,
    trust: Optional[bool] = None,
    purpose: str = "",
    world_size: int = 1,
    resume: bool = False,
) -> CfgNode:
    """As :func:`load_cfg`, with `MODEL.DEVICE` as configured, whatever this machine has."""
    cfg, mistakes = _merged(config_file, opts)
    _import(cfg, config_file, opts, trust)
    if purpose:
        typed = [str(o) for o in opts]
        mistakes += check_values(
            cfg, purpose, world_size=world_size, on_command_line=typed[0::2], resume=resume
        )
    refuse(mistakes)
    return cfg


def configured_device(config_file: str = "", opts: Sequence[str] = ()) -> str:
    """`MODEL.DEVICE` as configured; nothing is imported."""
    cfg, mistakes = _merged(config_file, opts)
    refuse(mistakes)
    return cfg.MODEL.DEVICE


def _import(cfg: CfgNode, config_file: str, opts: Sequence[str], trust: Optional[bool]) -> None:
    """Import what `IMPORTS` names, if that is allowed."""
    if not cfg.IMPORTS:
        return
    if "IMPORTS" not in opts[0::2] and not trust:
        files = [config_file, *(s.file for s in read_config_file(config_file))]
        if trust is False or lies_with_weights(dict.fromkeys(files)):
            refuse_untrusted(config_file, cfg.IMPORTS)
    import_modules(cfg.IMPORTS)


def without_cuda(cfg: CfgNode) -> bool:
    """Put a config for CUDA on the CPU where there is no CUDA; whether that was the case."""
    missing = cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available()
    if missing:
        cfg.MODEL.DEVICE = "cpu"
    return missing


def names_num_classes(config_file: str, opts: Sequence[str]) -> bool:
    """Whether a config file or options set the number of classes, which must then fit the data."""
    settings = read_config_file(config_file) if config_file else []
    keys = [*(setting.key for setting in settings), *opts[0::2]]
    return any(key.endswith(".NUM_CLASSES") for key in keys)


def _merged(config_file: str, opts: Sequence[str]) -> Tuple[CfgNode, List[str]]:
    """
    A config with what the file and options set, and messages on what is wrong with them: those
    settings have their defaults.
    """
    cfg = get_cfg()
    add_libra_config(cfg)
    mistakes = []
    for setting in read_config_file(config_file) if config_file else []:
        mistakes += _set(cfg, setting)
    pairs, not_pairs = _pairs(cfg, [str(o) for o in opts])
    mistakes += not_pairs
    for key, text in pairs:
        mistakes += _set(cfg, Setting(key, text, COMMAND_LINE))
    return cfg, mistakes


def refuse(mistakes: Sequence[str]) -> None:
    """
    Raises:
        UserError: there are mistakes; one is one line, several are a list.
    """
    mistakes = list(dict.fromkeys(mistakes))
    if len(mistakes) == 1:
        raise UserError(mistakes[0])
    if mistakes:
        raise UserError("\n  ".join([f"the config has {len(mistakes)} mistakes:", *mistakes]))


def _pairs(cfg: CfgNode, opts: Sequence[str]) -> Tuple[List[Tuple[str, str]], List[str]]:
    """`KEY VALUE` pairs of the command line, and a message on each word that is in none."""
    pairs, mistakes, rest = [], [], list(opts)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.partition("=")
        if word.startswith("--"):
            if rest and not rest[0].startswith("--") and not _resembles(cfg, rest[0]):
                word += f" {rest.pop(0)}"
            mistakes.append(
                f"{COMMAND_LINE}: the option {word} must stand before the KEY VALUE pairs"
            )
        elif equals and _resembles(cfg, key):
            name = key if _is_key(cfg, key) else _similar(cfg, key)
            mistakes.append(
                f"{COMMAND_LINE}: {word} must be two words, KEY VALUE: {name} "
                f"{shlex.quote(value) or 'VALUE'}"
            )
        elif not rest or (_is_key(cfg, rest[0]) and _is_key(cfg, word)):
            if _is_key(cfg, word):
                mistakes.append(f"{COMMAND_LINE}: {word} has no value: give KEY VALUE pairs")
            elif _resembles(cfg, word):
                mistakes.append(_unknown_key(cfg, Setting(word, "", COMMAND_LINE)))
            else:
                mistakes.append(
                    f"{COMMAND_LINE}: {shown(word)} is in no KEY VALUE pair, such as "
                    "SOLVER.BASE_LR 0.01. Put quotes around a value with spaces"
                )
        else:
            pairs.append((word, rest.pop(0)))
    return pairs, mistakes


def _set(cfg: CfgNode, setting: Setting) -> List[str]:
    """Set one value; returns the message of a mistake, if it is one."""
    key, value = setting.key, setting.value
    if not _is_key(cfg, key):
        return [_unknown_key(cfg, setting)]
    *path, last = key.split(".")
    node = cfg
    for part in path:
        node = node[part]
    default = node[last]
    if isinstance(default, CfgNode):
        if value in ({}, None) and setting.file != COMMAND_LINE:
            return []  # a section whose lines are all comments
        inner = ", ".join(list(default)[:5])
        return [f"{_source(setting)}{key} is a section: set keys in it, such as {inner}"]
    if key == "LIBRA_VERSION":
        return _other_version(setting, default)
    if key == "VERSION" and value != default:
        return [f"{_source(setting)}VERSION must be {default}, got {shown(value)}"]
    from_text = isinstance(value, str)
    if key in _IN_TUPLES and from_text and value[:1] not in ("(", "["):
        value = (value,) if value else ()
    elif from_text and not isinstance(default, str):
        value = _literal(value)
    elif from_text and setting.file == COMMAND_LINE and value[:1] in ("'", '"'):
        literal = _literal(value)  # quotes that the shell has left
        value = literal if isinstance(literal, str) else value
    if key == "IMPORTS":
        on_command_line = setting.file == COMMAND_LINE
        value = (value,) if isinstance(value, str) and value else value
        folder = "" if on_command_line else os.path.dirname(setting.file)
        value = absolute_modules(value, folder, setting.file)
    value = _as_type_of(default, value)
    if type(value) is not type(default) and default is not None:
        return [_wrong_type(setting, default)]
    node[last] = value
    return []


def _other_version(setting: Setting, ours: str) -> List[str]:
    """A message if the config was saved by a version whose keys may mean something else."""
    if str(setting.value).split(".")[:2] == ours.split(".")[:2]:
        return []
    return [
        f"{_source(setting)}this config was saved by libra_d2 {shown(setting.value)}, and this is "
        f"{ours}. Install that version, or take out LIBRA_VERSION and the keys that are refused "
        "then (CHANGELOG.md lists what has changed)"
    ]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return text


def _as_type_of(default: Any, value: Any) -> Any:
    """A value as one of the type of the default, where that changes nothing; else as it is."""
    if isinstance(default, (list, tuple)) and isinstance(value, (list, tuple)):
        return type(default)(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    return value


_EXPECTED = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a text",
    tuple: 'a tuple, in quotes, such as "{example}"',
    list: 'a list, in quotes, such as "{example}"',
}


def _wrong_type(setting: Setting, default: Any) -> str:
    expected = _EXPECTED.get(type(default), f"a {type(default).__name__}")
    if isinstance(default, (list, tuple)):
        value = setting.value
        given = _literal(value) if isinstance(value, str) else value
        known = type(default)(default) or ("name",)
        simple = not isinstance(given, (list, tuple, dict)) and given is not None
        expected = expected.format(example=type(default)([given]) if simple else known)
    if isinstance(default, str) and setting.file != COMMAND_LINE:
        expected += ", in quotes"
    return f"{_source(setting)}{setting.key} must be {expected}, got {shown(setting.value)}"


def _source(setting: Setting) -> str:
    return f"{printable(setting.file)}: "


def _unknown_key(cfg: CfgNode, setting: Setting) -> str:
    instead = replacement(setting.key)
    if instead:
        return f"{_source(setting)}{setting.key} is a key of an earlier version: {instead}"
    close = _similar(cfg, setting.key)
    hint = f"; did you mean {close}?" if close else ""
    return f"{_source(setting)}unknown config key {printable(setting.key)[:200]}{hint}"


def _is_key(cfg: CfgNode, key: str) -> bool:
    node = cfg
    for part in key.split("."):
        if not isinstance(node, CfgNode) or part not in node:
            return False
        node = node[part]
    return True


def _resembles(cfg: CfgNode, word: str) -> bool:
    return _is_key(cfg, word) or bool(replacement(word) or _similar(cfg, word))


def _similar(cfg: CfgNode, key: str) -> str:
    known = {name.upper(): name for name in flat(cfg)}
    upper = key.upper()
    if len(key) > 200:
        return ""
    # A section of a known key, or the last part of one, such as MAX_ITER.
    parts = [name for name in known.values() if name.endswith(f".{upper}")]
    if upper in known or len(parts) == 1:
        return known.get(upper) or parts[0]
    close = difflib.get_close_matches(upper, list(known), n=1)
    return known[close[0]] if close else ""
