"""What the tests of commands have in common: a trained detector, and a folder to work in."""

import pytest

from .small_detector import write_detector


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Path of a detector's run folder. Tests that change it work on a copy."""
    return write_detector(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
