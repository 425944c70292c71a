"""Protect CSV cells from being read as formulas by spreadsheet programs."""

from typing import Any, Iterable, List

# A cell that begins with one of these is a formula to Excel, LibreOffice or Google Sheets.
_BEGIN_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MARK = "'"


def text_cells(row: Iterable[Any]) -> List[Any]:
    """
    The row with an apostrophe before each text that a spreadsheet would run as a formula, such as a
    file or class name that begins with "=". Numbers stay as they are.
    """
    return [
        _MARK + cell
        if isinstance(cell, str) and cell.lstrip(_MARK).startswith(_BEGIN_FORMULA)
        else cell
        for cell in row
    ]


def without_mark(cell: str) -> str:
    """The text that :func:`text_cells` was given."""
    if cell.startswith(_MARK) and cell.lstrip(_MARK).startswith(_BEGIN_FORMULA):
        return cell[len(_MARK) :]
    return cell
