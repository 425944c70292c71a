"""Write CSV files whose cells no spreadsheet program reads as formulas."""

import csv
from typing import Any, Iterable, List

from .files import replacing

# Excel, LibreOffice and Google Sheets treat a cell that begins with one of these as a formula.
_BEGIN_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MARK = "'"


def write_csv(path: str, rows: Iterable[Iterable[Any]]) -> None:
    """
    Write a table. Undefined values (None) become empty cells.

    Raises:
        UserError: the file cannot be written.
    """
    with (
        replacing(path) as partial,
        open(partial, "w", encoding="utf-8", newline="", errors="backslashreplace") as f,
    ):
        csv.writer(f).writerows(map(text_cells, rows))


def text_cells(row: Iterable[Any]) -> List[Any]:
    """
    Put an apostrophe before each text in a row that a spreadsheet would run as a formula, such as a
    file or class name that begins with "=". Numbers are not changed.

    Example:
        >>> text_cells(["=1+1", "dog", -2])
        ["'=1+1", 'dog', -2]
    """
    return [
        _MARK + cell
        if isinstance(cell, str) and cell.lstrip(_MARK).startswith(_BEGIN_FORMULA)
        else cell
        for cell in row
    ]


def without_mark(cell: str) -> str:
    """Return the text from which :func:`text_cells` made a cell."""
    if cell.startswith(_MARK) and cell.lstrip(_MARK).startswith(_BEGIN_FORMULA):
        return cell[len(_MARK) :]
    return cell
