"""
The design of an experiment: which variants are trained, with which seeds, on which data. From it
follow the runs and their folders. It is saved as `experiment.yaml` in the folder of the experiment.
"""

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import yaml

from ..errors import UserError
from ..utils.files import make_folder_of, replacing
from ..utils.messages import printable, shown
from ..utils.yaml_files import read_yaml

FILE = "experiment.yaml"
MAX_RUNS = 10_000
# Letters, digits and ._+=- are safe in the names of folders on all systems, except at the ends.
_NAME = re.compile(r"[^\W_](?:[\w.+=-]{0,98}[\w+=-])?")
# Keys that the runner sets, and the option that they are set by.
SET_BY_RUNNER = {
    "DATASETS.TRAIN": "--train",
    "DATASETS.TEST": "--test",
    "OUTPUT_DIR": "--output",
    "OUTPUT_BRIEF": "--output",
    "SEED": "--seeds",
}


@dataclass(frozen=True)
class Variant:
    """A config to compare: the base config with some values changed."""

    name: str  # also the name of a folder
    overrides: Tuple[str, ...]  # KEY VALUE ..., after those of the design


@dataclass(frozen=True)
class Run:
    """One training: a variant with a seed, on a fold."""

    variant: str
    seed: int
    fold: int  # counted from 1; 0 without folds
    folder: str  # relative to the output folder of the design


@dataclass(frozen=True)
class Design:
    """
    Attributes:
        base: config file that all variants change.
        variants: with distinct names.
        baseline: name of the variant that the others are compared with.
        seeds: distinct, not negative.
        train: value of `DATASETS.TRAIN`, such as "coco:train.json,images".
        test: value of `DATASETS.TEST`; "" with folds, of which each is the test set of its runs.
        folds: number of folds of the training set; 0: it is not divided.
        group: with folds, images stay in one fold for which this regular expression finds the same
            text in their file names (its first group, or else the whole match); "": none.
        plan: whether the settings of all variants are planned for the training set first.
        output: folder of the experiment.
        overrides: KEY VALUE ..., for all variants.

    Raises:
        UserError: the values do not describe an experiment. The message says what is wrong.
    """

    base: str
    variants: Tuple[Variant, ...]
    baseline: str
    seeds: Tuple[int, ...]
    train: str
    test: str
    folds: int
    group: str
    plan: bool
    output: str
    overrides: Tuple[str, ...]

    def __post_init__(self) -> None:
        _check_variants(self.variants, self.baseline)
        _check_seeds(self.seeds)
        _check_data(self)
        _check_overrides("the overrides of all variants", self.overrides)
        if len(self.variants) * len(self.seeds) * max(self.folds, 1) > MAX_RUNS:
            raise UserError(
                f"an experiment must have at most {MAX_RUNS} runs, got {len(self.variants)} "
                f"variants x {len(self.seeds)} seeds x {max(self.folds, 1)} folds. Choose fewer"
            )

    def runs(self) -> List[Run]:
        """
        All runs, in the order in which they start: the variants of one seed and fold follow each
        other, so that the first comparisons are possible early.
        """
        return [
            Run(variant.name, seed, fold, run_folder(variant.name, seed, fold))
            for seed in self.seeds
            for fold in (range(1, self.folds + 1) if self.folds else (0,))
            for variant in self.variants
        ]

    def variant(self, name: str) -> Variant:
        """Return the variant of a name."""
        return next(variant for variant in self.variants if variant.name == name)

    def path(self, *parts: str) -> str:
        """Return the path of a file or folder in the folder of the experiment."""
        return os.path.join(self.output, *parts)

    def overrides_of(self, variant: str) -> List[str]:
        """Return all KEY VALUE pairs of a variant: those of the design, then its own."""
        return [*self.overrides, *self.variant(variant).overrides]

    def save(self) -> None:
        """Write `experiment.yaml`."""
        content = dataclasses.asdict(self)
        content["variants"] = {v.name: list(v.overrides) for v in self.variants}
        content["seeds"], content["overrides"] = list(self.seeds), list(self.overrides)
        path = self.path(FILE)
        make_folder_of(path)
        with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
            file.write("# Written by libra-d2 experiment: what is compared in this folder.\n")
            yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True, width=100)


def run_folder(variant: str, seed: int, fold: int) -> str:
    """
    >>> run_folder("bfp", 3, 0), run_folder("bfp", 3, 2)
    ('runs/bfp/seed3', 'runs/bfp/seed3-fold2')
    """
    return f"runs/{variant}/seed{seed}" + (f"-fold{fold}" if fold else "")


def load_design(output: str) -> Design:
    """
    Read the design of an experiment from its folder.

    Raises:
        UserError: there is no `experiment.yaml`, or it is not one that :meth:`Design.save` wrote.
    """
    path = os.path.join(output, FILE)
    if not Path(path).is_file():
        raise UserError(
            f"{printable(output)} is not the folder of an experiment: it has no {FILE}. "
            "Name the --output of `libra-d2 experiment`"
        )
    content = read_yaml(path, what="design")
    names = [field.name for field in dataclasses.fields(Design)]
    if not isinstance(content, dict) or set(content) != set(names):
        raise UserError(f"design {printable(path)} must have the keys {', '.join(names)}")
    variants, seeds, overrides = (content.pop(k) for k in ("variants", "seeds", "overrides"))
    texts = (content[key] for key in ("base", "baseline", "train", "test", "group"))
    if (
        not isinstance(variants, dict)
        or not all(isinstance(v, list) for v in (*variants.values(), seeds, overrides))
        or not all(isinstance(t, str) for t in texts)
        or type(content["folds"]) is not int
        or type(content["plan"]) is not bool
    ):
        raise UserError(f"design {printable(path)} has a value of a wrong type")
    return Design(
        **{**content, "output": output},  # the folder may have been moved
        variants=tuple(Variant(str(name), tuple(map(str, o))) for name, o in variants.items()),
        seeds=tuple(seeds),
        overrides=tuple(map(str, overrides)),
    )


def differences(old: Design, new: Design) -> List[str]:
    """
    Name what differs between two designs, apart from the path of the folder, each in a short text
    such as "seeds: 1, 2 there, 1, 2, 3 here". It is empty if the runs are the same.
    """
    found = []
    for field in dataclasses.fields(Design):
        before, now = getattr(old, field.name), getattr(new, field.name)
        if field.name == "variants":
            found += _different_variants(before, now)
        elif field.name != "output" and before != now:
            found.append(f"{field.name}: {_text(before)} there, {_text(now)} here")
    return found


def _different_variants(old: Sequence[Variant], new: Sequence[Variant]) -> List[str]:
    before, now = ({v.name: v.overrides for v in variants} for variants in (old, new))
    found = [
        f"variant {name}: {_text(before[name])} there, {_text(now[name])} here"
        for name in before
        if name in now and before[name] != now[name]
    ]
    if list(before) != list(now):
        found.append(f"variants: {_text(tuple(before))} there, {_text(tuple(now))} here")
    return found


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        joined = (" " if value and "." in str(value[0]) else ", ").join(map(str, value))
        return printable(joined) or "none"
    return printable(str(value)) or "none"


def parse_seeds(value: Any) -> Tuple[int, ...]:
    """
    Read the seeds of a command line or a file: a number of seeds, counted from 1, or a list.

    >>> parse_seeds("3"), parse_seeds("1,5,9"), parse_seeds([7])
    ((1, 2, 3), (1, 5, 9), (7,))

    Raises:
        UserError: the value is neither, a seed is negative, or a seed occurs twice.
    """
    wrong = UserError(
        "--seeds must be a number of seeds, such as 3 for 1, 2 and 3, or a list of seeds such as "
        f"1,5,9, got {shown(value)}"
    )
    if isinstance(value, str):
        words = [word.strip() for word in value.split(",")]
        if not all(re.fullmatch(r"[+-]?\d{1,18}", word, re.ASCII) for word in words if word):
            raise wrong
        numbers = [int(word) for word in words if word]
        value = numbers if len(words) > 1 or not numbers else numbers[0]
    if type(value) is int and 1 <= value <= MAX_RUNS:
        return tuple(range(1, value + 1))
    if not isinstance(value, list) or not all(type(seed) is int for seed in value):
        raise wrong
    _check_seeds(value)
    return tuple(value)


def overrides_from_file(value: Any, name: str) -> Tuple[str, ...]:
    """
    Read overrides from YAML: a list KEY, VALUE, ..., or a mapping, which may be nested as in a
    config file.

    >>> overrides_from_file({"MODEL": {"BFP": {"ENABLED": False}}, "SEED": 1}, "v")
    ('MODEL.BFP.ENABLED', 'False', 'SEED', '1')

    Raises:
        UserError: it is something else.
    """
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return tuple(_leaves(value, name, ""))
    if isinstance(value, list):
        return tuple(map(str, value))
    raise UserError(
        f"variant {shown(name)} must have a list [KEY, VALUE, ...] or keys with values, got "
        f"{shown(value)}"
    )


def _leaves(node: Mapping[Any, Any], name: str, prefix: str) -> List[str]:
    found: List[str] = []
    for key, value in node.items():
        if not isinstance(key, str):
            raise UserError(f"variant {shown(name)}: a key must be a name, got {shown(key)}")
        if isinstance(value, Mapping) and value:
            found += _leaves(value, name, f"{prefix}{key}.")
        else:
            found += [prefix + key, str(value)]
    return found


def _check_variants(variants: Sequence[Variant], baseline: str) -> None:
    if not variants:
        raise UserError("an experiment must have at least one variant, got none. Add variants")
    seen: Dict[str, str] = {}
    for variant in variants:
        if not _NAME.fullmatch(variant.name):
            raise UserError(
                "the name of a variant is the name of a folder and must have letters, digits and "
                "._+=-, at most 100, with a letter or digit first and no point last, got "
                f"{shown(variant.name)}"
            )
        # On some disks, names that differ in case only are the same folder.
        folded = variant.name.casefold()
        if folded in seen:
            raise UserError(
                "the names of variants must differ, and not only in case, got "
                f"{shown(seen[folded])} and {shown(variant.name)}. Rename one"
            )
        seen[folded] = variant.name
        _check_overrides(f"variant {variant.name}", variant.overrides)
    if baseline not in {v.name for v in variants}:
        names = ", ".join(v.name for v in variants)
        raise UserError(
            f"--baseline must be the name of a variant ({names}), got {shown(baseline)}"
        )


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds:
        raise UserError("--seeds must name at least one seed, got none")
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed < 2**31:
            raise UserError(f"--seeds: each must be from 0 to {2**31 - 1}, got {shown(seed)}")
    twice = [seed for i, seed in enumerate(seeds) if seed in seeds[:i]]
    if twice:
        raise UserError(f"--seeds must differ, got {twice[0]} twice. Runs of a seed are the same")


def _check_data(design: Design) -> None:
    if not design.base:
        raise UserError("--base must be a config file, got none")
    if not design.train:
        raise UserError("--train must be a data set, such as coco:train.json,images, got none")
    if design.folds and not 2 <= design.folds <= 100:
        raise UserError(f"--folds must be from 2 to 100, or 0 for none, got {design.folds}")
    if design.folds and design.test:
        raise UserError(
            "--folds and --test cannot be combined: each fold is the test set of the runs that "
            "are trained on the others. Leave out one of the two"
        )
    if not design.folds and not design.test:
        raise UserError(
            "--test must be a data set, such as coco:val.json,images, got none. "
            "--folds K tests on parts of the training set instead"
        )
    if design.group and not design.folds:
        raise UserError("--group must come with --folds, which it applies to")


def _check_overrides(where: str, overrides: Sequence[str]) -> None:
    if len(overrides) % 2:
        raise UserError(f"{where}: overrides must be KEY VALUE pairs, got {shown(overrides[-1])}")
    for key in overrides[::2]:
        if key in SET_BY_RUNNER:
            raise UserError(f"{where}: {key} is set by {SET_BY_RUNNER[key]}. Leave it out")
