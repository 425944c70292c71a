"""How names from other people's files are printed in errors and logs."""

import logging

import pytest

from libra_d2.errors import UserError
from libra_d2.utils.messages import PrintableLines, one_line, printable, printable_lines
from libra_d2.utils.system_errors import WriteError, write_error

HOSTILE = "a\x1b[31m\r\u202eb\udcff\x07"  # colour, line start, bidirectional override, odd byte
SHOWN = "a\\x1b[31m\\r\\u202eb\\udcff\\x07"


def test_what_terminals_obey_is_escaped_and_other_letters_stay():
    assert printable(HOSTILE) == SHOWN
    assert printable("œuf 猫 عربي") == "œuf 猫 عربي"
    assert printable_lines(f"{HOSTILE}\nb") == f"{SHOWN}\nb"


@pytest.mark.parametrize("error", [UserError, lambda m: write_error(OSError(28, "full"), m)])
def test_errors_are_printable_whatever_names_they_have(error):
    text = str(error(HOSTILE))
    assert SHOWN in text and "\x1b" not in text and "\u202e" not in text
    assert one_line(error(HOSTILE)) == text
    assert isinstance(write_error(OSError(28, "full"), "a"), WriteError)


def test_logs_are_printable_and_keep_their_colours_and_lines():
    records = []
    handler = logging.Handler()
    handler.emit = lambda r: records.append(r.getMessage())
    handler.addFilter(PrintableLines())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning("%s\n\t\x1b[32mgreen\x1b[0m", "a\x1b]0;title\x07\u202e")
    assert records == ["a\\x1b]0;title\\x07\\u202e\n\t\x1b[32mgreen\x1b[0m"]
