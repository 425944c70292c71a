"""Progress on a terminal and in files."""

import io
import sys

import pytest
from tqdm import tqdm

from libra_d2 import progress as module
from libra_d2.progress import progress


class Output(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def run(monkeypatch, clock, terminal, *, count, seconds, said=()):
    output = Output(terminal)
    monkeypatch.setattr(sys, "stderr", output)
    for i in progress(range(count), "Checking"):
        clock[0] += seconds
        if i in said:
            tqdm.write("a message", file=sys.stderr)
    return output.getvalue()


def test_a_file_gets_a_line_every_half_minute_and_the_last_one(monkeypatch, clock):
    text = run(monkeypatch, clock, False, count=100, seconds=1.1)
    lines = text.splitlines()
    assert "\r" not in text and "\x1b" not in text
    assert 4 <= len(lines) <= 6 and all(line.startswith("Checking: ") for line in lines)
    assert "100/100" in lines[-1] and "1.10s/image" in lines[-2] and "<" in lines[0]


def test_messages_in_between_repeat_no_line(monkeypatch, clock):
    text = run(monkeypatch, clock, False, count=100, seconds=1.1, said=range(0, 100, 3))
    assert len([line for line in text.splitlines() if "Checking" in line]) <= 6
    assert "\r" not in text


def test_a_terminal_gets_a_bar_that_stays(monkeypatch, clock):
    text = run(monkeypatch, clock, True, count=100, seconds=1.1)
    assert text.count("\r") > 50 and "100/100" in text and text.endswith("\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_done_at_once_shows_nothing(monkeypatch, clock, terminal):
    assert run(monkeypatch, clock, terminal, count=10, seconds=module.DELAY / 20) == ""
