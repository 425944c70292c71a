"""Build the tables of pages, which are shown even without JavaScript."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Sequence, Tuple

_LONG = 24  # characters from which report.css may cut a text off
NOTHING = "\u2013"  # en dash
_FORMS: Dict[str, Callable[[Any], str]] = {
    "text": str,
    "count": str,
    "ratio": "{:.1%}".format,
    "score": "{:.2f}".format,
    "points": lambda v: f"{100 * v:+.1f}",
    "probability": "{:.3f}".format,
}
Columns = Sequence[Tuple[str, str]]  # title and form


class Column(NamedTuple):
    title: str
    form: str  # a key of _FORMS, and a class of report.css
    tip: str  # the full title if it may be cut off, otherwise ""


class Cell(NamedTuple):
    text: str
    form: str
    value: str  # the value by which pages.js sorts
    tip: str  # as in Column


@dataclass(frozen=True)
class Table:
    """
    Attributes:
        headed: whether a heading above the table already says what the caption says. The caption
            is then only for screen readers.
    """

    caption: str
    columns: List[Column]
    rows: List[List[Cell]]
    name: str
    headed: bool


def table(
    caption: str,
    columns: Columns,
    rows: Iterable[Sequence[Any]],
    *,
    name: str = "",
    headed: bool = True,
) -> Table:
    """Format the values of a table. None is shown as a dash."""
    forms = [form for _, form in columns]
    return Table(
        caption,
        [Column(title, form, _tip(title)) for title, form in columns],
        [[_cell(value, form) for value, form in zip(row, forms)] for row in rows],
        name,
        headed,
    )


def _cell(value: Any, form: str) -> Cell:
    key = "" if value is None else str(value)
    return Cell(shown(value, form), form, key, _tip(key))


def _tip(text: str) -> str:
    return text if len(text) > _LONG else ""


def shown(value: Any, form: str) -> str:
    return NOTHING if value is None else _FORMS[form](value)
