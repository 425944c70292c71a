"""Protect CSV cells from being read as formulas by spreadsheet programs."""

from typing import Any, Iterable, List

# Excel, LibreOffice and Google Sheets treat a cell that begins with one of these as a formula.
_BEGIN_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MARK = "'"


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
