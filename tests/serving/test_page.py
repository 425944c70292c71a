"""The page of a server, in a browser."""

import base64
import io
import json
import re
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from libra_d2.predictions.detections import Detections
from libra_d2.serving import Predictor

from ..support.browser import until
from .servers import running
from .uploads import png

pytestmark = pytest.mark.browser

# Files as a browser gives them to a page: [[name, base64], ...]
TRANSFER = """files => {
  const transfer = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    transfer.items.add(new File([bytes], name));
  }
  %s
}"""
DROP = TRANSFER % (
    "for (const type of ['dragenter', 'dragover', 'drop']) document.body.dispatchEvent("
    "new DragEvent(type, {dataTransfer: transfer, bubbles: true, cancelable: true}));"
)
PASTE = TRANSFER % (
    "document.dispatchEvent(new ClipboardEvent('paste', "
    "{clipboardData: transfer, bubbles: true, cancelable: true}));"
)


@pytest.fixture(scope="module")
def server(exported):
    with running("--model", exported[1], "--max-bytes", 100_000) as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def predictor(exported):
    return Predictor(exported[1])


@contextmanager
def opened(browser, url, width=1280, expected=(), **options):
    """The page at a URL. It asks only its own server, and complains only of what is expected."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page = context.new_page()
    bad, asked = [], []
    page.on("console", lambda m: bad.append(m.text))
    page.on("pageerror", lambda e: bad.append(str(e)))
    page.on("request", lambda r: asked.append(r.url))
    try:
        page.goto(url)
        page.wait_for_selector("html[data-ready=yes]")
        yield page
        assert [b for b in bad if not any(e in b for e in expected)] == []
        foreign = [a for a in asked if not a.startswith((url, "blob:", "data:"))]
        assert foreign == []
    finally:
        context.close()


def give(page, how, *files):
    page.evaluate(how, [[name, base64.b64encode(content).decode()] for name, content in files])


def shown(page, name):
    page.wait_for_selector("#result:not([hidden])")
    until(page, f"document.querySelector('#count').textContent.endsWith('in {name}')")
    return page.locator("#rows tr").all_inner_texts()


def expected_rows(predictor, content, threshold, classes=None):
    found = Detections.from_instances(predictor(content))
    entry = found.entry(predictor.class_names, predictor.category_ids)
    return [
        p
        for p in entry["predictions"]
        if p["score"] >= threshold and (classes is None or p["class"]["name"] in classes)
    ]


def assert_rows(rows, expected):
    assert [r.split("\t")[0] for r in rows] == [p["class"]["name"] for p in expected]
    scores = [float(r.split("\t")[1]) for r in rows]
    assert np.allclose(scores, [p["score"] for p in expected], rtol=0, atol=0.0051)


@pytest.mark.parametrize("how", [DROP, PASTE], ids=["drop", "paste"])
def test_images_are_dropped_and_pasted(browser, server, predictor, how):
    with opened(browser, server) as page:
        give(page, how, ("a.png", png(0)))
        assert_rows(shown(page, "a.png"), expected_rows(predictor, png(0), 0.5))
        assert page.locator("#error").is_hidden() and page.locator("#canvas").is_visible()
        assert not page.evaluate("document.querySelector('#drop').classList.contains('over')")
        give(page, how, ("b.png", png(1)), ("c.png", png(2)))
        assert_rows(shown(page, "b.png"), expected_rows(predictor, png(1), 0.5))
        page.get_by_role("button", name="c.png").click()
        assert_rows(shown(page, "c.png"), expected_rows(predictor, png(2), 0.5))
        names = page.locator("#images button").all_inner_texts()
        assert names == ["a.png", "b.png", "c.png"]


def test_the_slider_and_the_classes(browser, server, predictor):
    with opened(browser, server) as page:
        page.set_input_files("#files", {"name": "a.png", "mimeType": "", "buffer": png(0)})
        assert_rows(shown(page, "a.png"), expected_rows(predictor, png(0), 0.5))
        slider = page.get_by_label("Min. score")
        slider.focus()
        page.keyboard.press("Home")
        every = expected_rows(predictor, png(0), 0.0)
        assert_rows(page.locator("#rows tr").all_inner_texts(), every)
        assert f"{len(every)} of {len(every)} detections" in page.inner_text("#count")
        for _ in range(55):
            page.keyboard.press("ArrowRight")
        fewer = expected_rows(predictor, png(0), 0.55)
        assert 0 < len(fewer) < len(every)
        assert_rows(page.locator("#rows tr").all_inner_texts(), fewer)
        assert page.inner_text("#threshold-value") == "0.55"
        page.keyboard.press("Home")
        one = every[0]["class"]["name"]
        before = page.evaluate("document.querySelector('#canvas').toDataURL()")
        page.get_by_label(one, exact=True).uncheck()
        others = set(predictor.class_names) - {one}
        rows = expected_rows(predictor, png(0), 0.0, others)
        assert 0 < len(rows) < len(every)
        assert_rows(page.locator("#rows tr").all_inner_texts(), rows)
        assert page.evaluate("document.querySelector('#canvas').toDataURL()") != before


def test_downloads_are_what_is_shown(browser, server, predictor):
    with opened(browser, server, accept_downloads=True) as page:
        content = png(4, (500, 700))
        small = Image.open(io.BytesIO(content)).resize((90, 64))
        stored = io.BytesIO()
        small.save(stored, "png")
        give(page, DROP, ("my photo.x.png", stored.getvalue()))
        shown(page, "my photo.x.png")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download JSON").click()
        assert download.value.suggested_filename == "my photo.x.json"
        with open(download.value.path()) as f:
            found = json.load(f)
        assert list(found) == ["my photo.x.png"]
        assert (found["my photo.x.png"]["width"], found["my photo.x.png"]["height"]) == (90, 64)
        assert found["my photo.x.png"]["predictions"] == expected_rows(
            predictor, stored.getvalue(), 0.5
        )
        with page.expect_download() as download:
            page.get_by_role("button", name="Download picture").click()
        assert download.value.suggested_filename == "my photo.x-detections.png"
        picture = Image.open(download.value.path())
        assert picture.format == "PNG" and picture.width == 640
        assert abs(picture.width / picture.height - 90 / 64) < 0.01


def test_errors_are_lines_and_do_not_hide_the_rest(browser, server):
    with opened(browser, server, expected=["415", "422", "ERR_"]) as page:
        large = b"\0" * 100_001
        give(page, DROP, ("x.txt", b"text"), ("a.png", png(0)), ("large.bmp", large))
        shown(page, "a.png")
        until(page, "!document.querySelector('#error').hidden")
        error = page.inner_text("#error")
        assert "x.txt: not an image of a supported format." in error
        assert "large.bmp: the file has 100001 bytes, and at most 100000 are accepted." in error
        page.get_by_label("Slice size").fill("7")
        give(page, DROP, ("a.png", png(0)))
        until(page, "document.querySelector('#error').textContent.includes('slice must be')")
        page.get_by_label("Slice size").fill("")
        give(page, DROP, ("<img src=x onerror=alert(1)>.png", b"text"))
        until(page, "document.querySelector('#error').textContent.includes('<img src=x')")
        page.context.set_offline(True)
        give(page, DROP, ("a.png", png(0)))
        until(page, "document.querySelector('#error').textContent.includes('cannot be reached')")
        page.context.set_offline(False)
        give(page, DROP, ("b.png", png(1)))
        shown(page, "b.png")
        assert page.locator("#error").is_hidden()


def test_an_image_that_only_the_server_can_read(browser, server):
    with opened(browser, server) as page:
        tiff = io.BytesIO()
        Image.open(io.BytesIO(png(0))).save(tiff, "tiff")
        give(page, DROP, ("a.tiff", tiff.getvalue()))
        assert shown(page, "a.tiff")
        assert page.locator("#canvas").is_hidden() and page.locator("#no-picture").is_visible()
        assert page.get_by_role("button", name="Download picture").is_disabled()
        give(page, DROP, ("b.png", png(0)))
        shown(page, "b.png")
        assert page.locator("#canvas").is_visible()
        assert page.get_by_role("button", name="Download picture").is_enabled()


def test_the_keyboard_is_enough(browser, server):
    with opened(browser, server) as page:
        give(page, DROP, ("a.png", png(0)), ("b.png", png(1)))
        shown(page, "a.png")
        page.evaluate("document.activeElement.blur()")
        order = []
        for _ in range(20):
            page.keyboard.press("Tab")
            order.append(
                page.evaluate(
                    "(document.activeElement.innerText || document.activeElement.id "
                    "|| document.activeElement.type || '').split('\\n')[0]"
                )
            )
        wanted = ["Choose files", "slice", "a.png", "b.png", "threshold", "checkbox"]
        places = [order.index(name) for name in wanted]
        assert places == sorted(places), order
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose files").focus()
            page.keyboard.press("Enter")
        assert chooser.value.is_multiple()
        page.locator("#rows tr").first.focus()
        before = page.evaluate("document.querySelector('#canvas').toDataURL()")
        page.evaluate("document.activeElement.blur()")
        assert page.evaluate("document.querySelector('#canvas').toDataURL()") != before


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_colours_follow_the_system(browser, server, width, scheme):
    with opened(browser, server, width, color_scheme=scheme) as page:
        name = "a_long_name_" * 12 + ".png"
        give(page, DROP, (name, png(0, (200, 90))), ("b.png", png(1)))
        shown(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        is_dark = sum(map(int, re.findall(r"\d+", colour)[:3])) < 300
        assert is_dark == (scheme == "dark")
        page.locator("#theme").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != colour


def test_the_camera(browser, server):
    """Chromium's camera is a pattern. Without permission, the page says what is wrong."""
    with opened(browser, server) as page:
        page.get_by_role("button", name="Use the camera").click()
        until(page, "document.querySelector('#error').textContent.includes('camera cannot be')")
        page.evaluate(
            """() => {
              const canvas = document.createElement("canvas");
              canvas.width = 80; canvas.height = 60;
              const context = canvas.getContext("2d");
              setInterval(() => context.fillRect(Math.random() * 80, 5, 20, 20), 20);
              navigator.mediaDevices.getUserMedia = async () => canvas.captureStream(30);
            }"""
        )
        page.get_by_role("button", name="Use the camera").click()
        page.get_by_role("button", name="Take the picture").click()
        page.wait_for_selector("#result:not([hidden])")
        assert re.search(r"in camera-[\d-]+T[\d-]+\.jpg$", page.inner_text("#count"))
        assert page.locator("#viewfinder").is_hidden()


def test_a_page_asks_for_the_token(browser, exported):
    with (
        running("--model", exported[1], LIBRA_D2_TOKEN="s3cret") as (_, port),
        opened(browser, f"http://127.0.0.1:{port}/", expected=["401"]) as page,
    ):
        assert "s3cret" not in page.content()
        give(page, DROP, ("a.png", png(0)))
        until(page, "document.querySelector('#error').textContent.includes('token')")
        page.get_by_label("Token").fill("s3cret")
        page.keyboard.press("Enter")
        give(page, DROP, ("a.png", png(0)))
        assert shown(page, "a.png")
