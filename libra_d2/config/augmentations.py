"""
The transforms that `INPUT.AUGMENTATIONS` can name, and how its entries are read and checked.

:mod:`libra_d2.data.augmentations` builds the transforms.
"""

import ast
import difflib
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from detectron2.config import CfgNode

from ..utils.messages import shown
from .values import number

KEY = "INPUT.AUGMENTATIONS"
_MAX_LENGTH = 500  # characters of an entry


@dataclass(frozen=True)
class Argument:
    """
    A number from `low` to `high`, both inclusive. Without a default, it must be given.

    Args:
        is_size: whether it may also be a pair, (height, width).
    """

    low: float
    high: float
    default: Optional[float] = None
    whole: bool = False
    is_size: bool = False

    @property
    def expected(self) -> str:
        kind = "an integer" if self.whole else "a number"
        text = f"{kind} from {self.low:g} to {self.high:g}"
        return f"{text}, or (height, width) of such numbers" if self.is_size else text

    def accepts(self, value: Any) -> bool:
        if self.is_size and isinstance(value, (tuple, list)):
            return len(value) == 2 and all(self._in_range(v) for v in value)
        return self._in_range(value)

    def _in_range(self, value: Any) -> bool:
        return not number("", value, low=self.low, high=self.high, whole=self.whole)


@dataclass(frozen=True)
class Switch:
    """True or False."""

    default: bool
    expected = "True or False"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool)


Arguments = Dict[str, Union[Argument, Switch]]


@dataclass(frozen=True)
class Entry:
    """
    An entry of the list: the name of a transform and all of its arguments, with their defaults.

    Args:
        text: as written in the config.
    """

    name: str
    arguments: Dict[str, Any]
    text: str


def _probability(default: float = 1.0) -> Argument:
    return Argument(0, 1, default)


_FACTORS: Arguments = {"min": Argument(0, 10), "max": Argument(0, 10), "prob": _probability()}
_MIN_AREA = Argument(0, 1, 0.3)

# In the order of docs/augmentation.md, whose table a test compares with this one.
TRANSFORMS: Dict[str, Arguments] = {
    "ResizeScale": {
        "min_scale": Argument(0.01, 10),
        "max_scale": Argument(0.01, 10),
        "size": Argument(1, 16384, 0, whole=True, is_size=True),
    },
    "FixedSizeCrop": {
        "size": Argument(1, 16384, whole=True, is_size=True),
        "min_area": _MIN_AREA,
    },
    "RandomCrop": {"min": Argument(0.05, 1), "min_area": _MIN_AREA, "prob": _probability()},
    "Expand": {"max_ratio": Argument(1, 10, 4.0), "prob": _probability(0.5)},
    "CopyPaste": {
        "prob": _probability(0.5),
        "max_objects": Argument(1, 100, 10, whole=True),
        "rare_classes": Switch(False),
        "max_overlap": Argument(0, 1, 0.3),
    },
    "HorizontalFlip": {"prob": _probability(0.5)},
    "VerticalFlip": {"prob": _probability(0.5)},
    "Rotate90": {"prob": _probability(0.75)},
    "Brightness": _FACTORS,
    "Contrast": _FACTORS,
    "Saturation": _FACTORS,
    "Hue": {"min": Argument(-180, 180), "max": Argument(-180, 180), "prob": _probability()},
    "Gray": {"prob": _probability(0.1)},
}
RESIZING = ("ResizeScale", "FixedSizeCrop")
# Pairs of arguments of which the first is at most the second.
_RANGES = (("min_scale", "max_scale"), ("min", "max"))


def parse_augmentations(texts: Sequence[str]) -> List[Entry]:
    """
    Read the entries of `INPUT.AUGMENTATIONS`, such as "Brightness(0.8, 1.2, prob=0.5)".

    Arguments are literals, which are read but never run.

    Raises:
        ValueError: an entry cannot be read. :func:`check_augmentations` returns the messages.
    """
    entries = [_parse(text) for text in texts]
    for i, entry in enumerate(entries):
        if entry.name == "ResizeScale" and not entry.arguments["size"]:
            crops = [e for e in entries[i + 1 :] if e.name == "FixedSizeCrop"]
            if not crops:
                raise ValueError(
                    f"{KEY} must be a list in which ResizeScale has a size, unless a FixedSizeCrop "
                    f"comes after it, got {shown(entry.text)}"
                )
            entry.arguments["size"] = crops[0].arguments["size"]
    return entries


def check_augmentations(cfg: CfgNode) -> List[str]:
    """Return messages about entries that cannot be used, and about keys that contradict them."""
    node = cfg.INPUT
    messages: List[str] = []
    good = []
    for text in node.AUGMENTATIONS:
        try:
            good.append(_parse(text))
        except ValueError as e:
            messages.append(str(e))
    if not messages:
        try:
            parse_augmentations(node.AUGMENTATIONS)
        except ValueError as e:
            messages.append(str(e))
    return messages + (_contradictions(cfg, good) if node.AUGMENTATIONS else [])


def _contradictions(cfg: CfgNode, entries: Sequence[Entry]) -> List[str]:
    """Return messages about other keys that augment images, which the list would not follow."""
    node = cfg.INPUT
    whole = f"if {KEY} is set, which is then the whole augmentation"
    messages = []
    if node.RANDOM_FLIP != "horizontal":
        messages.append(
            f"INPUT.RANDOM_FLIP must be 'horizontal', its default, {whole}, got "
            f"{shown(node.RANDOM_FLIP)}. Put HorizontalFlip or VerticalFlip into the list, or "
            "neither"
        )
    if node.CROP.ENABLED:
        messages.append(
            f"INPUT.CROP.ENABLED must be False {whole}, got True. Put RandomCrop or FixedSizeCrop "
            "into the list"
        )
    resizing = [e.text for e in entries if e.name in RESIZING]
    if any(node.FIXED_SIZE) and resizing:
        messages.append(
            f"INPUT.FIXED_SIZE must be (0, 0) if {KEY} resizes the images itself, here by "
            f"{resizing[0]}, got {tuple(node.FIXED_SIZE)}"
        )
    return messages


def _parse(text: Any) -> Entry:
    name, call = _call(text)
    if name not in TRANSFORMS:
        close = difflib.get_close_matches(name, TRANSFORMS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        known = ", ".join(TRANSFORMS)
        raise ValueError(f"{KEY} must be a list of {known}, got {shown(text)}{hint}")
    arguments = TRANSFORMS[name]
    try:
        given = _given(call, arguments)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        accepted = ", ".join(f"{key} ({a.expected})" for key, a in arguments.items())
        raise ValueError(
            f"{KEY} must be a list in which {name} has the arguments {accepted}, got {shown(text)}"
        ) from None
    for key, value in given.items():
        if not arguments[key].accepts(value):
            raise ValueError(
                f"{KEY} must be a list in which {key} of {name} is {arguments[key].expected}, got "
                f"{shown(text)}"
            )
    values: Dict[str, Any] = {
        key: given.get(key, argument.default) for key, argument in arguments.items()
    }
    for low, high in _RANGES:
        if low in values and high in values and values[low] > values[high]:
            raise ValueError(
                f"{KEY} must be a list in which {low} of {name} is at most its {high}, got "
                f"{shown(text)}"
            )
    return Entry(name, values, text)


def _call(text: Any) -> Tuple[str, ast.Call]:
    """Return the name that an entry calls, and the call. It is only read, never run."""
    try:
        if not isinstance(text, str) or len(text) > _MAX_LENGTH:
            raise ValueError
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(
            f"{KEY} must be a list of texts such as 'HorizontalFlip(prob=0.5)', one for each "
            f"transform, got {shown(text)}"
        ) from None
    return call.func.id, call


def _given(call: ast.Call, arguments: Arguments) -> Dict[str, Any]:
    """
    Return the arguments of a call by name.

    Raises:
        ValueError: an argument is unknown, given twice, missing or not a literal.
    """
    pairs: List[Tuple[Optional[str], ast.expr]] = list(zip(arguments, call.args))
    pairs += [(keyword.arg, keyword.value) for keyword in call.keywords]
    given = {key: ast.literal_eval(value) for key, value in pairs if key in arguments}
    required = {key for key, argument in arguments.items() if argument.default is None}
    if len(given) < len(call.args) + len(call.keywords) or not required <= set(given):
        raise ValueError
    return {str(key): value for key, value in given.items()}
