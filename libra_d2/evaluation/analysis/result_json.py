"""Results of an analysis as JSON, and back."""

import json
from typing import Any, Dict, Type, TypeVar, Union

from ...errors import UserError
from ...utils import dataclass_json
from ...utils.messages import printable
from .results import VERSION, Analysis, ClassResult, RunComparison

T = TypeVar("T", Analysis, RunComparison)


def to_json(result: Union[Analysis, RunComparison]) -> str:
    """
    Write a result as the content of `analysis.json` or `compare.json`.

    Raises:
        ValueError: a number of the result is NaN or infinite.
    """
    return json.dumps(result, default=json_fields, allow_nan=False)


def json_fields(result: Any) -> Dict[str, Any]:
    """
    Turn one of the dataclasses in :mod:`.results` into a JSON object, as
    :func:`libra_d2.utils.dataclass_json.json_fields` does.
    """
    found = dataclass_json.json_fields(result)
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
    try:
        return dataclass_json.from_json(kind, content)
    except dataclass_json.WrongValueError as e:
        raise UserError(f"{printable(name)}: {e}. Run `libra-d2 analyze` again") from None
