"""Results of an analysis as JSON, and back."""

import json
import math
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Dict, List, Tuple, Type, TypeVar, Union, get_args, get_origin

from ...errors import UserError
from ...utils.messages import printable
from .results import VERSION, Analysis, ClassResult, RunComparison

T = TypeVar("T", Analysis, RunComparison)
_EXPECTED = {
    list: "a list",
    dict: "an object",
    str: "a text",
    bool: "true or false",
    int: "an integer",
    float: "a number",
}


def to_json(result: Union[Analysis, RunComparison]) -> str:
    """
    What `analysis.json` or `compare.json` holds.

    Raises:
        ValueError: a number of the result is NaN or infinite.
    """
    return json.dumps(result, default=json_fields, allow_nan=False)


def json_fields(result: Any) -> Dict[str, Any]:
    """
    The JSON object of one of the dataclasses in :mod:`.results`. The values of its fields stay as
    they are. A field whose default is None is left out while it is None.
    """
    kind: Any = type(result)
    values = ((key, getattr(result, f.name), f) for key, f in _keys(kind))
    found = {key: v for key, v, f in values if not (v is None and f.default is None)}
    if isinstance(result, ClassResult) and result.best_threshold is None:
        # Format 1 has these keys in another order if the class has no true positive.
        for key in ("best_threshold", "best_precision", "best_recall"):
            found[key] = found.pop(key)
    return found


def from_json(kind: Type[T], content: Any, name: str) -> T:
    """
    The result that was written as JSON.

    Args:
        kind: `Analysis` or `RunComparison`.
        content: the parsed JSON.
        name: of the file, for messages.

    Raises:
        UserError: the file was written by another version, or a key is missing or has a value of
            another type.
    """
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise UserError(
            f"{printable(name)} was written by another version (format {version!r}, expected "
            f"{VERSION}). Run `libra-d2 analyze` again"
        )
    try:
        return _read(kind, content, "")
    except _WrongValueError as e:
        raise UserError(f"{printable(name)}: {e}. Run `libra-d2 analyze` again") from None


class _WrongValueError(Exception):
    pass


@cache
def _keys(kind: Any) -> List[Tuple[str, Field]]:
    return [(f.metadata.get("key", f.name), f) for f in fields(kind)]


def _read(kind: Any, value: Any, where: str) -> Any:
    """
    Args:
        kind: a dataclass of :mod:`.results`, or the type of one of their fields.
        where: the keys that lead to the value, "" for the whole.
    """
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Any:
        return value
    if origin is Union:  # Optional[X] is Union[X, None]
        return None if value is None else _read(inner[0], value, where)
    if is_dataclass(kind):
        return _read_fields(kind, value, where)
    if not _is(origin, value):
        raise _WrongValueError(
            f"{where} must be {_EXPECTED[origin]}, got {printable(repr(value)[:80])}"
        )
    if origin is list:
        return [_read(inner[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
    if origin is dict:
        return {k: _read(inner[1], v, f"{where}[{k!r}]") for k, v in value.items()}
    return value


def _read_fields(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _WrongValueError(f"{where} must be an object, got {printable(repr(value)[:80])}")
    found = {}
    for key, field in _keys(kind):
        inside = f"{where}.{key}" if where else key
        if key in value:
            found[field.name] = _read(field.type, value[key], inside)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise _WrongValueError(f"{inside} is missing")
    return kind(**found)


def _is(kind: type, value: Any) -> bool:
    if kind is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
