"""
Dataclasses as JSON objects, and back with a check of every value.

The key of a field is its name, or `metadata["key"]` if that is not a Python name.
"""

import math
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from typing import Any, Callable, Dict, List, Tuple, Type, TypeVar, Union, get_args, get_origin

from .messages import printable

T = TypeVar("T")
_EXPECTED = {
    list: "a list",
    dict: "an object",
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
}


def json_fields(value: Any) -> Dict[str, Any]:
    """
    Turn a dataclass into a JSON object.

    The values of its fields stay as they are, so that this can be the `default` of `json.dumps`. A
    field whose default is None is left out if it is None.
    """
    kind: Any = type(value)
    values = ((key, getattr(value, f.name), f) for key, f in _keys(kind))
    return {key: v for key, v, f in values if not (v is None and f.default is None)}


def from_json(kind: Type[T], content: Any) -> T:
    """
    Turn parsed JSON into a dataclass. Keys that the dataclass does not have are ignored.

    Args:
        kind: a dataclass. The types of its fields may be dataclasses, `Any`, `str`, `bool`, `int`
            and `float`, and of these, `Optional`, `List` and `Dict`.

    Raises:
        WrongValueError: a key is missing, or a value has another type or is not finite.
    """
    dataclass: Any = kind
    return _reader(dataclass)(content)


class WrongValueError(Exception):
    """Says which value is wrong. Each reader around the value adds its own key in front."""

    def inside(self, key: str) -> "WrongValueError":
        text = str(self)
        return WrongValueError(key + text if text[0] in ".[ " else f"{key}.{text}")


@cache
def _keys(kind: Any) -> List[Tuple[str, Any]]:
    return [(f.metadata.get("key", f.name), f) for f in fields(kind)]


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """
    Args:
        kind: a dataclass, or the type of one of its fields.

    Returns:
        A function that turns a JSON value into a value of that type, or raises `WrongValueError`.
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
    except WrongValueError as e:
        raise e.inside(f"[{len(found)}]") from None
    return found


def _read_dict(read: Callable[[Any], Any], value: Any) -> Dict[str, Any]:
    _check(value, dict)
    found = {}
    for key, item in value.items():
        try:
            found[key] = read(item)
        except WrongValueError as e:
            raise e.inside(f"[{key!r}]") from None
    return found


def _read_fields(kind: Any, readers: List[tuple], value: Any) -> Any:
    _check(value, dict)
    found = {}
    for key, field, read in readers:
        if key in value:
            try:
                found[field.name] = read(value[key])
            except WrongValueError as e:
                raise e.inside(key) from None
        elif field.default is MISSING and field.default_factory is MISSING:
            raise WrongValueError(" is missing").inside(key)
    return kind(**found)


def _read_plain(kind: type, value: Any) -> Any:
    _check(value, kind)
    return value


def _check(value: Any, kind: type) -> None:
    # JSON has one kind of number, and in Python, True is an integer.
    right = type(value) is kind or (kind is float and type(value) is int)
    if not right or (kind is float and not math.isfinite(value)):
        got = printable(repr(value)[:80])
        raise WrongValueError(f" must be {_EXPECTED[kind]}, got {got}")
