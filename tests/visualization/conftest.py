"""The browser in which pages are opened."""

import importlib.util

import pytest
from playwright.sync_api import sync_playwright

from ..support.project import ROOT

# Without these, Chromium looks for updates or for a GPU.
ARGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def find_browser():
    spec = importlib.util.spec_from_file_location("setup_browser", ROOT / "tools/setup_browser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.find_browser()


@pytest.fixture(scope="module")
def browser():
    path = find_browser()
    if path is None:
        pytest.fail("no Chromium is found: as root, apt install chromium")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()
