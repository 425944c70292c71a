"""The browser in which pages are opened."""

import importlib.util
import re
from contextlib import contextmanager

import pytest
from playwright.sync_api import sync_playwright

from .project import ROOT

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


@contextmanager
def started():
    """A headless Chromium."""
    path = find_browser()
    if path is None:
        pytest.fail("no Chromium is found: as root, apt install chromium")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser, path, *, width=1280, height=900, script=True, **options):
    """A page; at the end, nothing may have been complained of or asked for."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, java_script_enabled=script, **options
    )
    context.set_default_timeout(120_000)  # ms, for machines that are slow or busy
    page = context.new_page()
    bad = []
    page.on("console", lambda m: bad.append(f"console: {m.text}"))
    page.on("pageerror", lambda e: bad.append(f"error: {e}"))
    page.on("dialog", lambda d: (bad.append(f"dialog: {d.message}"), d.dismiss()))
    page.on("request", lambda r: re.match("file:|data:|blob:", r.url) or bad.append(r.url))
    try:
        page.goto(path.as_uri())
        if script:
            page.wait_for_selector("html[data-ready=yes]")
        yield page
        assert bad == []
    finally:
        context.close()


def until(page, expression):
    """wait_for_function() would evaluate it in the page, whose policy forbids that."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {expression}")
