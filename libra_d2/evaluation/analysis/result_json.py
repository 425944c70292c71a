"""Results of an analysis as JSON, and back."""

import json
import math
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from typing import Any, Callable, Dict, List, Tuple, Type, TypeVar, Union, get_args, get_origin

from ...errors import UserError
from ...utils.messages import printable
from .results import VERSION, Analysis, ClassResult, RunComparison

T = TypeVar("T", Analysis, RunComparison)
_EXPECTED = {
    list: "a list",
    dict: "an object",
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
}


def to_json(result: Union[Analysis, RunComparison]) -> str:
    """
    Write a result as the content of `analysis.json` or `compare.json`.

    Raises:
        ValueError: a number of the result is NaN or infinite.
    """
    return json.dumps(result, default=json_fields, allow_nan=False)


def json_fields(result: Any) -> Dict[str, Any]:
    """
    Turn one of the dataclasses in :mod:`.results` into a JSON object.

    The values of its fields stay as they are. A field whose default is None is left out if it is
    None.
    """
    kind: Any = type(result)
    values = ((key, getattr(result, f.name), f) for key, f in _keys(kind))
    found = {key: v for key, v, f in values if not (v is None and f.default is None)}
    if isinstance(result, ClassResult) and result.best_threshold is None:
        # In format 1 the keys have another order if the class has no true positive.
        for key in ("best_threshold", "best_precision", "best_recall"):
            found[key] = found.pop(key)
    return found


def from_json(kind: Type[T], content: Any, name: str) -> T:
    """
    Read a result that :func:`to_json` has written.

    Args:
        kind: `Analysis` or `RunComparison`.
        content: the parsed JSON.
        name: path of the file, for messages.

    Raises:
        UserError: the file was written by another version, or a key is missing or has a value of
            another type.
    """
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise UserError(
            f"{printable(name)} was written by another version (format "
            f"{printable(repr(version)[:80])}, expected {VERSION}). Run `libra-d2 analyze` again"
        )
    result_type: Any = kind
    try:
        return _reader(result_type)(content)
    except _WrongValueError as e:
        raise UserError(f"{printable(name)}: {e}. Run `libra-d2 analyze` again") from None


class _WrongValueError(Exception):
    """Says what is wrong. Each reader around the value adds its own key in front."""

    def inside(self, key: str) -> "_WrongValueError":
        text = str(self)
        return _WrongValueError(key + text if text[0] in ".[ " else f"{key}.{text}")


@cache
def _keys(kind: Any) -> List[Tuple[str, Any]]:
    return [(f.metadata.get("key", f.name), f) for f in fields(kind)]


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """
    Args:
        kind: a dataclass of :mod:`.results`, or the type of one of their fields.

    Returns:
        A function that turns a JSON value into a value of that type, or raises `_WrongValueError`.
    """
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Any:
        return lambda value: value
    if origin is Union:  # Optional[X] is Union[X, None]
        read = _reader(inner[0])
        return lambda value: None if value is None else read(value)
    if origin is list:
        return partial(_read_list, _reader(inner[0]))
    if origin is dict:
        return partial(_read_dict, _reader(inner[1]))
    if is_dataclass(origin):
        return partial(_read_fields, kind, [(key, f, _reader(f.type)) for key, f in _keys(kind)])
    return partial(_read_plain, kind)


def _read_list(read: Callable[[Any], Any], value: Any) -> List[Any]:
    _check(value, list)
    found: List[Any] = []
    try:
        for item in value:
            found.append(read(item))
    except _WrongValueError as e:
        raise e.inside(f"[{len(found)}]") from None
    return found


def _read_dict(read: Callable[[Any], Any], value: Any) -> Dict[str, Any]:
    _check(value, dict)
    found = {}
    for key, item in value.items():
        try:
            found[key] = read(item)
        except _WrongValueError as e:
            raise e.inside(f"[{key!r}]") from None
    return found


def _read_fields(kind: Any, readers: List[tuple], value: Any) -> Any:
    _check(value, dict)
    found = {}
    for key, field, read in readers:
        if key in value:
            try:
                found[field.name] = read(value[key])
            except _WrongValueError as e:
                raise e.inside(key) from None
        elif field.default is MISSING and field.default_factory is MISSING:
            raise _WrongValueError(" is missing").inside(key)
    return kind(**found)


def _read_plain(kind: type, value: Any) -> Any:
    _check(value, kind)
    return value


def _check(value: Any, kind: type) -> None:
    # JSON has one kind of number, and in Python, True is an integer.
    right = type(value) is kind or (kind is float and type(value) is int)
    if not right or (kind is float and not math.isfinite(value)):
        got = printable(repr(value)[:80])
        raise _WrongValueError(f" must be {_EXPECTED[kind]}, got {got}")
