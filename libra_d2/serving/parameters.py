"""The parameters of a request."""

from dataclasses import dataclass
from typing import Dict, Iterable, Optional, Tuple

from ..errors import UserError
from ..inference.slicing import Slicing
from ..utils.messages import shown

FORMATS = ("json", "coco", "picture")
PARAMETERS = ("score_threshold", "slice", "overlap", "format")


@dataclass(frozen=True)
class Parameters:
    """
    Parameters of a request.

    Detections with at least the score `score_threshold` are returned; None leaves the choice to the
    server. `slicing` is how images are cut, None for not at all.
    """

    score_threshold: Optional[float] = None
    slicing: Optional[Slicing] = None
    format: str = FORMATS[0]


def read_parameters(query: Iterable[Tuple[str, str]], lowest: float) -> Parameters:
    """
    Read the query of a URL.

    >>> read_parameters([("score_threshold", "0.5"), ("format", "coco")], lowest=0.05)
    Parameters(score_threshold=0.5, slicing=None, format='coco')

    Args:
        query: names and values.
        lowest: the score threshold of the server's detector.

    Raises:
        UserError: a parameter is unknown or is given twice, or a value is out of range.
    """
    given: Dict[str, str] = {}
    for name, value in query:
        if name not in PARAMETERS:
            known = ", ".join(PARAMETERS)
            raise UserError(f"a parameter must be one of {known}, got {shown(name)}")
        if name in given:
            raise UserError(f"{name} must be given once, got {shown(given[name])}, {shown(value)}")
        given[name] = value
    threshold = _number(given, "score_threshold")
    if threshold is not None and not 0 <= threshold <= 1:  # also of NaN
        raise UserError(f"score_threshold must be in [0, 1], got {threshold}")
    if threshold is not None and threshold < lowest:
        raise UserError(
            f"score_threshold must be at least {lowest:g}, the threshold of this server, got "
            f"{threshold:g}"
        )
    size = _number(given, "slice")
    if size is not None and not size.is_integer():
        raise UserError(f"slice must be a number of pixels, got {shown(given['slice'])}")
    overlap = _number(given, "overlap")
    slicing = Slicing.of(None if size is None else int(size), overlap, ("slice", "overlap"))
    wanted = given.get("format", FORMATS[0])
    if wanted not in FORMATS:
        raise UserError(f"format must be one of {', '.join(FORMATS)}, got {shown(wanted)}")
    return Parameters(threshold, slicing, wanted)


def _number(given: Dict[str, str], name: str) -> Optional[float]:
    if name not in given:
        return None
    try:
        return float(given[name])
    except ValueError:
        raise UserError(f"{name} must be a number, got {shown(given[name])}") from None
