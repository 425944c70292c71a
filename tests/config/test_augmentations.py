"""The list INPUT.AUGMENTATIONS: how its entries are read, and which are refused."""

import re

import pytest

from libra_d2.config import load_cfg
from libra_d2.config.augmentations import TRANSFORMS, Argument, parse_augmentations
from libra_d2.errors import UserError

from ..support.project import ROOT

CONFIG = "configs/libra_mobilenet_v2.yaml"


def refused(entries, *opts):
    with pytest.raises(UserError) as e:
        load_cfg(CONFIG, [*opts, "INPUT.AUGMENTATIONS", str(tuple(entries))], purpose="train")
    return str(e.value)


def test_arguments_by_name_and_by_position():
    entries = parse_augmentations(
        ("Brightness(0.8, max=1.2)", "FixedSizeCrop((480, 640))", " CopyPaste( rare_classes=True )")
    )
    assert [(e.name, e.arguments) for e in entries] == [
        ("Brightness", {"min": 0.8, "max": 1.2, "prob": 1.0}),
        ("FixedSizeCrop", {"size": (480, 640), "min_area": 0.3}),
        (
            "CopyPaste",
            {"prob": 0.5, "max_objects": 10, "rare_classes": True, "max_overlap": 0.3},
        ),
    ]


def test_resize_scale_takes_the_size_of_the_next_crop():
    texts = ("FixedSizeCrop(7)", "ResizeScale(1, 2)", "Gray()", "FixedSizeCrop(8)")
    assert parse_augmentations(texts)[1].arguments["size"] == 8
    assert parse_augmentations(("ResizeScale(1, 2, 9)",))[0].arguments["size"] == 9


def test_yaml_and_command_line(tmp_path):
    """An entry is plain text in a list of YAML. One entry needs no list."""
    file = tmp_path / "c.yaml"
    lines = [f"_BASE_: {ROOT / CONFIG}", "INPUT:", "  AUGMENTATIONS:"]
    lines += ["    - RandomCrop(min=0.6, prob=0.5)", "    - Hue(-18, 18)"]
    file.write_text("\n".join(lines))
    assert load_cfg(str(file), purpose="train").INPUT.AUGMENTATIONS == (
        "RandomCrop(min=0.6, prob=0.5)",
        "Hue(-18, 18)",
    )
    one = load_cfg(CONFIG, ["INPUT.AUGMENTATIONS", "Hue(-18, 18)"]).INPUT.AUGMENTATIONS
    assert one == ("Hue(-18, 18)",)
    assert load_cfg(str(file), ["INPUT.AUGMENTATIONS", "()"]).INPUT.AUGMENTATIONS == ()


def test_a_saved_config_is_read_again(tmp_path):
    texts = ("RandomCrop(min=0.6, prob=0.5)", "Hue(-18, 18)")
    cfg = load_cfg(CONFIG, ["INPUT.AUGMENTATIONS", str(texts)])
    (tmp_path / "saved.yaml").write_text(cfg.dump())
    assert texts == load_cfg(str(tmp_path / "saved.yaml")).INPUT.AUGMENTATIONS


SPELLED = {
    "Blur()": "must be a list of ResizeScale, FixedSizeCrop, RandomCrop,",
    "RandomCorp(min=0.5)": "did you mean RandomCrop?",
    "HorizontalFlip": "must be a list of texts such as 'HorizontalFlip(prob=0.5)'",
    "os.remove('x')": "must be a list of texts",
    "Gray(": "must be a list of texts",
    "Gray(), Gray()": "must be a list of texts",
    "Gray(" + "-" * 600 + "1)": "must be a list of texts",
    "Gray(prob=__import__('os').getpid())": "Gray has the arguments prob (a number from 0 to 1)",
    "Gray(p=0.5)": "Gray has the arguments prob",
    "Gray(0.5, 0.5)": "Gray has the arguments prob",
    "Gray(0.5, prob=0.5)": "Gray has the arguments prob",
    "Gray(prob=0.5, prob=0.6)": "Gray has the arguments prob",
    "Gray(*[0.5])": "Gray has the arguments prob",
    "Gray(**{'prob': 0.5})": "Gray has the arguments prob",
    "RandomCrop()": "RandomCrop has the arguments min (a number from 0.05 to 1), min_area",
    "Gray(prob=1e999)": "prob of Gray is a number from 0 to 1",
    "Gray(prob=True)": "prob of Gray is a number from 0 to 1",
    "Gray(prob='1')": "prob of Gray is a number from 0 to 1",
    "FixedSizeCrop(3.5)": "size of FixedSizeCrop is an integer from 1 to 16384, or (height, width)",
    "FixedSizeCrop((3, 4, 5))": "size of FixedSizeCrop is an integer from 1 to 16384",
    "CopyPaste(rare_classes=1)": "rare_classes of CopyPaste is True or False",
    "CopyPaste(max_objects=0)": "max_objects of CopyPaste is an integer from 1 to 100",
    "Brightness(1.2, 0.8)": "min of Brightness is at most its max",
    "ResizeScale(2, 1, 64)": "min_scale of ResizeScale is at most its max_scale",
    "ResizeScale(1, 2)": "ResizeScale has a size, unless a FixedSizeCrop comes after it",
}


@pytest.mark.parametrize("text", SPELLED)
def test_a_mistake_is_told(text):
    message = refused([text])
    assert message.startswith("INPUT.AUGMENTATIONS must be ") and ", got " in message
    assert SPELLED[text] in message and "\n" not in message


@pytest.mark.parametrize("name", TRANSFORMS)
def test_each_range_is_checked_at_both_ends(name):
    arguments = {k: a for k, a in TRANSFORMS[name].items() if isinstance(a, Argument)}
    middle = {k: (a.low + a.high) // 2 or 1 for k, a in arguments.items()}

    def text(**values):
        return f"{name}({', '.join(f'{k}={v}' for k, v in {**middle, **values}.items())})"

    for key, argument in arguments.items():
        for value in (argument.low - 1, argument.high + 1, None):
            assert f"{key} of {name} is {argument.expected}" in refused([text(**{key: value})])
        for value in (argument.low, argument.high):
            both = {k: value for k in ("min", "max", "min_scale", "max_scale") if k in middle}
            together = both if key in both and len(both) > 1 and "min_area" not in middle else {}
            (entry,) = parse_augmentations([text(**{**together, key: value})])
            assert entry.arguments[key] == value


def test_all_mistakes_are_told_at_once():
    message = refused(["Blur()", "Gray(5)", "HorizontalFlip()"], "SOLVER.MAX_ITER", "0")
    assert "the config has 3 mistakes" in message
    assert all(part in message for part in ("'Blur()'", "'Gray(5)'", "SOLVER.MAX_ITER"))


@pytest.mark.parametrize(
    "opts, expected",
    [
        ("INPUT.RANDOM_FLIP vertical", "INPUT.RANDOM_FLIP must be 'horizontal', its default, if"),
        ("INPUT.RANDOM_FLIP none", "INPUT.RANDOM_FLIP must be 'horizontal'"),
        ("INPUT.CROP.ENABLED True", "INPUT.CROP.ENABLED must be False if INPUT.AUGMENTATIONS"),
        ("INPUT.FIXED_SIZE (64,64)", "INPUT.FIXED_SIZE must be (0, 0) if INPUT.AUGMENTATIONS"),
    ],
)
def test_keys_that_the_list_would_ignore_are_refused(opts, expected):
    opts = opts.split()
    assert expected in refused(["FixedSizeCrop(64)"], *opts)
    load_cfg(CONFIG, opts, purpose="train")  # without the list, they are fine


def test_fixed_size_is_fine_if_the_list_does_not_resize():
    opts = ["INPUT.FIXED_SIZE", "(64, 64)", "INPUT.AUGMENTATIONS", "HorizontalFlip()"]
    load_cfg(CONFIG, opts, purpose="train")


def test_the_documentation_has_all_arguments_ranges_and_defaults():
    rows = re.findall(
        r"^\| `(\w+)` \| .+? \| (`.+?) \| [^|]+ \|$",
        (ROOT / "docs/augmentation.md").read_text(),
        re.MULTILINE,
    )
    expected = []
    for name, arguments in TRANSFORMS.items():
        texts = []
        for key, a in arguments.items():
            given = f"{a.low:g} to {a.high:g}" if isinstance(a, Argument) else "True or False"
            shown = "of the next FixedSizeCrop" if a.default == 0 and key == "size" else a.default
            texts.append(f"`{key}` {given}" + ("" if a.default is None else f" ({shown})"))
        expected.append((name, ", ".join(texts)))
    assert rows == expected
