"""Load a config from a file and `KEY VALUE` pairs, and report all mistakes in it together."""

import ast
import difflib
import itertools
import os
import shlex
from typing import Any, List, Optional, Sequence, Tuple

import torch
from detectron2.config import CfgNode, get_cfg

from ..errors import UserError
from ..utils.messages import printable, shown
from .checks import check_values
from .config_files import Setting, read_config_file
from .flattening import flat, set_value, value_at
from .keys import add_libra_config
from .removed_keys import is_harmless, replacement
from .schedule import KEYS as SCHEDULE_KEYS
from .schedule import STEPS, Layers, notes_of, read_value
from .user_modules import absolute_modules, import_modules, lies_with_weights, refuse_untrusted

# A single name or description of a data set, or augmentation, needs no tuple around it.
_IN_TUPLES = ("DATASETS.TRAIN", "DATASETS.TEST", "INPUT.AUGMENTATIONS")
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
    Return Detectron2's config with libra_d2's keys, into which a config file and `KEY VALUE` pairs
    are merged.

    The modules that `IMPORTS` names are imported. On a machine without CUDA, `MODEL.DEVICE` is set
    to "cpu".

    Args:
        config_file: path of a YAML file; "" for the defaults.
        opts: keys and values in turn, which override those of the file.
        trust: whether to import the `IMPORTS` of the file. By default, they are imported unless the
            file is in the folder of a run or next to weights. Those of `opts` are always imported.
        purpose: if given, also check the values that matter for this purpose. See
            :func:`~libra_d2.config.checks.check_values`, also for `world_size` and `resume`.

    Raises:
        UserError: the file does not exist or is not valid YAML, keys are unknown, or values have
            the wrong type or cannot be used for the purpose. The message lists all mistakes and
            suggests similar keys.

    Example::

        cfg = load_cfg("configs/libra_r50.yaml", ["SOLVER.BASE_LR", "0.01"], purpose="train")
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
    """Like :func:`load_cfg`, but keep `MODEL.DEVICE` even on a machine without CUDA."""
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
    """Return `MODEL.DEVICE` of a config without importing its `IMPORTS`."""
    cfg, mistakes = _merged(config_file, opts)
    refuse(mistakes)
    return cfg.MODEL.DEVICE


def _import(cfg: CfgNode, config_file: str, opts: Sequence[str], trust: Optional[bool]) -> None:
    """Import the modules that `IMPORTS` names if that is allowed, else raise an error."""
    if not cfg.IMPORTS:
        return
    if "IMPORTS" not in opts[0::2] and not trust:
        files = [config_file, *(s.file for s in read_config_file(config_file))]
        if trust is False or lies_with_weights(dict.fromkeys(files)):
            refuse_untrusted(config_file, cfg.IMPORTS)
    import_modules(cfg.IMPORTS)


def without_cuda(cfg: CfgNode) -> bool:
    """Set `MODEL.DEVICE` to "cpu" if there is no CUDA. Return whether this changed the config."""
    missing = cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available()
    if missing:
        cfg.MODEL.DEVICE = "cpu"
    return missing


def names_num_classes(config_file: str, opts: Sequence[str]) -> bool:
    """Whether a file or options set the number of classes, which must then match the data."""
    settings = read_config_file(config_file) if config_file else []
    keys = [*(setting.key for setting in settings), *opts[0::2]]
    return any(key.endswith(".NUM_CLASSES") for key in keys)


def _merged(config_file: str, opts: Sequence[str]) -> Tuple[CfgNode, List[str]]:
    """
    Return the config and messages about mistakes in the settings. Settings with mistakes keep their
    defaults.
    """
    cfg = get_cfg()
    add_libra_config(cfg)
    mistakes: List[str] = []
    layers = Layers(cfg)
    settings = read_config_file(config_file) if config_file else []
    for file, layer in itertools.groupby(settings, key=lambda setting: setting.file):
        mistakes += _set_layer(cfg, layers, file, list(layer))
    pairs, not_pairs = _pairs(cfg, [str(o) for o in opts])
    mistakes += not_pairs
    typed = [Setting(key, text, COMMAND_LINE) for key, text in pairs]
    mistakes += _set_layer(cfg, layers, COMMAND_LINE, typed)
    layers.finish()
    notes_of(cfg).steps_on_command_line = any(s.key == STEPS for s in typed)
    return cfg, mistakes


def _set_layer(cfg: CfgNode, layers: Layers, source: str, settings: Sequence[Setting]) -> List[str]:
    """Set the values of a file or of the command line. Return messages about mistakes."""
    mistakes = [message for setting in settings for message in _set(cfg, setting)]
    return mistakes + layers.end_layer(source, {setting.key for setting in settings})


def refuse(mistakes: Sequence[str]) -> None:
    """
    Raise an error if there are mistakes.

    Raises:
        UserError: there are mistakes. Several of them are listed one per line.
    """
    mistakes = list(dict.fromkeys(mistakes))
    if len(mistakes) == 1:
        raise UserError(mistakes[0])
    if mistakes:
        raise UserError("\n  ".join([f"the config has {len(mistakes)} mistakes:", *mistakes]))


def _pairs(cfg: CfgNode, opts: Sequence[str]) -> Tuple[List[Tuple[str, str]], List[str]]:
    """Return the `KEY VALUE` pairs of the command line, and messages about all other words."""
    pairs, mistakes, rest = [], [], list(opts)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.partition("=")
        if word.startswith("--"):
            if rest and not rest[0].startswith("--") and not _resembles(cfg, rest[0]):
                word += f" {rest.pop(0)}"
            mistakes.append(
                f"{COMMAND_LINE}: the option {word} must come before the KEY VALUE pairs"
            )
        elif equals and _resembles(cfg, key):
            name = key if is_key(cfg, key) else _similar(cfg, key)
            mistakes.append(
                f"{COMMAND_LINE}: {word} must be two words, KEY VALUE: {name} "
                f"{shlex.quote(value) or 'VALUE'}"
            )
        elif not rest or (is_key(cfg, rest[0]) and is_key(cfg, word)):
            if is_key(cfg, word):
                mistakes.append(f"{COMMAND_LINE}: {word} has no value. Give KEY VALUE pairs")
            elif _resembles(cfg, word):
                mistakes.append(_unknown_key(cfg, Setting(word, "", COMMAND_LINE)))
            else:
                mistakes.append(
                    f"{COMMAND_LINE}: {shown(word)} does not belong to a KEY VALUE pair, such as "
                    "SOLVER.BASE_LR 0.01. Put a value that contains spaces in quotes"
                )
        else:
            pairs.append((word, rest.pop(0)))
    return pairs, mistakes


def _set(cfg: CfgNode, setting: Setting) -> List[str]:
    """Set one value. Return a message if it is a mistake."""
    key, value = setting.key, setting.value
    if is_harmless(key, _literal(value) if isinstance(value, str) else value):
        return []
    if not is_key(cfg, key):
        return [_unknown_key(cfg, setting)]
    default = value_at(cfg, key)
    if isinstance(default, CfgNode):
        if value in ({}, None) and setting.file != COMMAND_LINE:
            return []  # a section that contains only comments
        inner = ", ".join(list(default)[:5])
        return [f"{_source(setting)}{key} is a section, not a key. Set keys in it, such as {inner}"]
    if key == "LIBRA_VERSION":
        return _other_version(setting, default)
    if key == "VERSION" and value != default:
        return [f"{_source(setting)}VERSION must be {default}, got {shown(value)}"]
    if key in SCHEDULE_KEYS:
        return _set_schedule(cfg, setting)
    from_text = isinstance(value, str)
    if key in _IN_TUPLES and from_text and value[:1] not in ("(", "["):
        value = (value,) if value else ()
    elif from_text and not isinstance(default, str):
        value = _literal(value)
    elif from_text and setting.file == COMMAND_LINE and value[:1] in ("'", '"'):
        literal = _literal(value)  # remove quotes that the shell has not removed
        value = literal if isinstance(literal, str) else value
    if key == "IMPORTS":
        on_command_line = setting.file == COMMAND_LINE
        value = (value,) if isinstance(value, str) and value else value
        folder = "" if on_command_line else os.path.dirname(setting.file)
        value = absolute_modules(value, folder, setting.file)
    value = _as_type_of(default, value)
    if type(value) is not type(default) and default is not None:
        return [_wrong_type(setting, default)]
    set_value(cfg, key, value)
    return []


def _set_schedule(cfg: CfgNode, setting: Setting) -> List[str]:
    """
    Set a number of iterations, which may also be a text such as "1 epoch" or "70%". The type of the
    current value says nothing, because an earlier layer may have set a text.
    """
    section, name = setting.key.split(".")
    value = _literal(setting.value) if isinstance(setting.value, str) else setting.value
    value, message = read_value(setting.key, value)
    if message:
        return [_source(setting) + message]
    if setting.key == STEPS and not isinstance(value, tuple):
        return [_wrong_type(setting, (300, 360))]
    cfg[section][name] = value
    return []


def _other_version(setting: Setting, ours: str) -> List[str]:
    """Return a message if another version saved the config, whose keys may differ in meaning."""
    if str(setting.value).split(".")[:2] == ours.split(".")[:2]:
        return []
    return [
        f"{_source(setting)}this config was saved by libra_d2 {shown(setting.value)}, but this is "
        f"{ours}. Install that version, or remove LIBRA_VERSION and the keys that are then "
        "reported (CHANGELOG.md lists the changes)"
    ]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return text


def _as_type_of(default: Any, value: Any) -> Any:
    """Convert a value to the type of the default if that does not change it in meaning."""
    if isinstance(default, (list, tuple)) and isinstance(value, (list, tuple)):
        return type(default)(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    return value


_EXPECTED = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a string",
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


def is_key(cfg: CfgNode, key: str) -> bool:
    """Return whether a config has the key, or a section of that name."""
    node = cfg
    for part in key.split("."):
        if not isinstance(node, CfgNode) or part not in node:
            return False
        node = node[part]
    return True


def _resembles(cfg: CfgNode, word: str) -> bool:
    return is_key(cfg, word) or bool(replacement(word) or _similar(cfg, word))


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
