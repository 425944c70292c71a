"""Keys of earlier versions are refused with what replaces them."""

import pytest

from libra_d2.config import load_cfg
from libra_d2.config.removed_keys import _REPLACED
from libra_d2.errors import UserError
from libra_d2.version import __version__


@pytest.mark.parametrize("key", sorted(_REPLACED))
def test_each_removed_key_says_what_to_do(key, tmp_path):
    section, _, last = key.rpartition(".")
    lines = [f"{'  ' * i}{part}:" for i, part in enumerate(section.split("."))]
    config = tmp_path / "old.yaml"
    config.write_text("\n".join([*lines, f"{'  ' * len(lines)}{last}: 'x'"]))
    expected = f"{key} is a key of an earlier version: {_REPLACED[key]}"
    for file, opts in ((str(config), []), ("", [key, "x"])):
        with pytest.raises(UserError) as e:
            load_cfg(file, opts)
        assert expected in str(e.value)


def test_replacements_are_keys():
    cfg = load_cfg()
    for text in _REPLACED.values():
        for word in text.replace(",", "").replace(";", "").split():
            if word.split(".")[0] in cfg and "." in word:
                load_cfg("", [word, str(_value(cfg, word))])


def _value(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def test_former_defaults_of_saved_runs_are_dropped(tmp_path):
    """A run of 0.2.0 can still be evaluated, unless it used the removed keys."""
    config = tmp_path / "saved.yaml"
    for flip, expand in ((0.5, 0.0), (0.5, 0)):
        config.write_text(f"INPUT:\n  FLIP_PROB: {flip}\n  EXPAND_PROB: {expand}\n")
        assert load_cfg(str(config), ["INPUT.FLIP_PROB", "0.5"]) == load_cfg()
    for text in ("FLIP_PROB: 0.4", "EXPAND_PROB: 0.5", "FLIP_PROB: 0.0", "EXPAND_PROB: false"):
        config.write_text(f"INPUT:\n  {text}\n")
        with pytest.raises(UserError, match="is a key of an earlier version: add"):
            load_cfg(str(config))


@pytest.mark.parametrize("version", ["0.1.0", "99.0.0", "x"])
def test_configs_of_other_versions_are_refused(version, tmp_path):
    config = tmp_path / "saved.yaml"
    config.write_text(f"LIBRA_VERSION: '{version}'\n")
    expected = f"saved by libra_d2 '{version}', but this is {__version__}"
    with pytest.raises(UserError, match=expected):
        load_cfg(str(config))


def test_a_config_of_this_version_is_read(tmp_path):
    config = tmp_path / "saved.yaml"
    config.write_text(load_cfg("configs/libra_r50.yaml").dump())
    cfg = load_cfg(str(config))
    assert __version__ == cfg.LIBRA_VERSION


def test_backbones_of_an_earlier_version():
    opts = ["MODEL.BACKBONE.NAME", "build_timm_fpn_backbone"]
    with pytest.raises(
        UserError, match=r"set build_libra_timm_fpn_backbone, and set MODEL\.BFP\.ENABLED to False"
    ):
        load_cfg("configs/libra_mobilenet_v2.yaml", opts, purpose="infer")
