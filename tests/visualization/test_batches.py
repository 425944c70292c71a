"""Pictures, captions and the page of training batches, the latter in a headless Chromium."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from libra_d2.data.checks.anchor_matches import AnchorMatches
from libra_d2.visualization.batches import PAGE, SHEET, write_batches
from libra_d2.visualization.batches.pictures import ANCHOR, OBJECT, UNMATCHED, draw_view
from libra_d2.visualization.batches.views import Summary, TrainingView, caption

from .test_report import NASTY, opened

BACKGROUND = 0.3


def view_of(ious, *, name="photo.jpg", class_name="cat", size=(300, 400), batch=1):
    """A grey image with one object for each IoU: 40 x 40, and its anchor 10 pixels to the right."""
    count = len(ious)
    boxes = torch.tensor([[20.0 + 70 * i, 100, 60 + 70 * i, 140] for i in range(count)])
    matches = AnchorMatches(
        best_ious=torch.tensor(ious),
        best_anchors=boxes.reshape(-1, 4) + torch.tensor([10.0, 0, 10, 0]),
        best_levels=torch.arange(count) % 2,
        num_foreground=torch.arange(count) + 1,
    )
    return TrainingView(
        batch=batch,
        file_name=f"/data/{name}",
        image=np.full((*size, 3), 100, np.uint8),
        boxes=boxes.reshape(-1, 4).numpy(),
        class_names=[class_name] * count,
        padded=(320, 416),
        matches=matches,
    )


def summary():
    return Summary.of_levels(("p2", "p3"), BACKGROUND)


def num_pixels(picture, colour):
    return int((np.asarray(picture) == np.array(colour)).all(-1).sum())


@pytest.mark.parametrize(
    "ious, text",
    [
        ([], "no objects"),
        ([0.9], "1 object with an anchor of IoU 0.3"),
        ([0.1], "1 of 1 object has no anchor of IoU 0.3"),
        ([0.9, 0.29, 0.3], "1 of 3 objects have no anchor of IoU 0.3"),
        ([0.9, 0.3], "2 objects with an anchor of IoU 0.3"),  # the threshold itself is enough
    ],
)
def test_captions_count_objects_without_an_anchor(ious, text):
    assert caption(view_of(ious), BACKGROUND) == text


def test_captions_without_anchors():
    view = view_of([0.1, 0.1])._replace(matches=None)
    assert caption(view, None) == "2 objects"


def test_summary_adds_up():
    total = summary()
    for view in (view_of([0.9, 0.2, 0.5]), view_of([]), view_of([0.4])):
        total.add(view)
    assert (total.num_images, total.num_objects, total.num_without) == (3, 4, 1)
    assert total.objects_by_level == {"p2": 3, "p3": 1}
    assert total.median_foreground == 1.5  # of 1, 2, 3 and 1
    assert "1 (25.0%) without an anchor of IoU 0.3" in total.line()


@pytest.mark.parametrize("without, advised", [(0, False), (1, False), (2, True)])
def test_a_plan_is_advised_from_one_percent_on(without, advised):
    total = Summary.of_levels(("p2",), BACKGROUND)
    total.num_objects, total.num_without = 100, without
    assert total.advised == advised


def test_no_objects_are_no_reason_for_a_plan():
    total = summary()
    total.add(view_of([]))
    assert not total.advised and total.line() == "1 image, 0 objects"


def test_objects_without_an_anchor_have_a_colour_of_their_own():
    """In the place of the object, and no green there."""
    picture = draw_view(view_of([0.1]), BACKGROUND, 800)
    assert num_pixels(picture, UNMATCHED.colour) > 200 and not num_pixels(picture, OBJECT.colour)
    assert num_pixels(picture, ANCHOR.colour) > 50
    matched = draw_view(view_of([0.8]), BACKGROUND, 800)
    assert num_pixels(matched, OBJECT.colour) > 200
    assert not num_pixels(matched, UNMATCHED.colour)


@pytest.mark.parametrize("side", [480, 800])
def test_boxes_and_anchors_lie_where_they_are(side):
    picture = draw_view(view_of([0.8]), BACKGROUND, side)
    assert max(picture.size) == side
    pixels = np.asarray(picture)
    scale = side / 400
    for kind, left, right in ((OBJECT, 20, 60), (ANCHOR, 30, 70)):
        rows = pixels[round(scale * 110) : round(scale * 130)]  # between the two horizontal lines
        columns = np.flatnonzero((rows == np.array(kind.colour)).all(-1).any(0))
        assert abs(columns.min() - scale * left) <= 4 and abs(columns.max() - scale * right) <= 4


def test_without_anchors_only_objects_are_drawn():
    picture = draw_view(view_of([0.1])._replace(matches=None), None, 480)
    assert num_pixels(picture, OBJECT.colour) > 100
    assert not num_pixels(picture, ANCHOR.colour) + num_pixels(picture, UNMATCHED.colour)


def test_the_sheet_has_all_pictures(tmp_path):
    views = [view_of([0.5], batch=i) for i in range(5)]
    write_batches(str(tmp_path), views, summary())
    sheet = Image.open(tmp_path / SHEET)
    one = num_pixels(draw_view(views[0], BACKGROUND, 480), ANCHOR.colour)
    assert num_pixels(sheet.convert("RGB"), ANCHOR.colour) >= 5 * one
    assert sheet.width > 4 * 480 and sheet.height > 2 * 360


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    views = [view_of([0.9, 0.2]), view_of([]), view_of([0.5], size=(500, 200), batch=2)]
    views += [view_of([0.6], name=n.replace("/", "_") * 5, class_name=n * 9) for n in NASTY]
    write_batches(str(folder), views, summary(), ["A note on <b>this</b> run."])
    return folder / PAGE


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_its_window_and_asks_for_nothing(browser, page_file, width, scheme):
    options = {"width": width, "script": False, "color_scheme": scheme}
    with opened(browser, page_file, **options) as page:
        for details in page.locator("details summary").all():
            details.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        sides = page.evaluate(
            "[...document.querySelectorAll('.views img')].map(i => [i.naturalWidth, "
            "i.getBoundingClientRect().right])"
        )
        assert len(sides) == 3 + len(NASTY)
        assert all(natural > 0 and right <= width for natural, right in sides)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(json.loads(f"[{background[4:-1]}]")) > 384) == (scheme == "light")


@pytest.mark.browser
def test_page_says_what_it_shows(browser, page_file):
    with opened(browser, page_file, script=False) as page:
        cards = dict(zip(*(page.locator(f".card {t}").all_inner_texts() for t in ("dt", "dd"))))
        assert cards["Images"] == str(3 + len(NASTY)) and cards["No anchor of IoU 0.3"] == "1"
        captions = page.locator("figcaption p:first-of-type").all_inner_texts()
        assert captions[:2] == ["1 of 2 objects have no anchor of IoU 0.3", "no objects"]
        assert page.locator(".views .unmatched").count() == 1
        page.locator("details summary").first.click()
        rows = page.locator("figure").first.locator("tbody tr").all_inner_texts()
        expected = [["cat", "40 x 40", "0.90", "1", "p2", "40 x 40"]]
        expected += [["cat", "40 x 40", "0.20", "2", "p3", "40 x 40"]]
        assert [r.split("\t") for r in rows] == expected
        notices = page.locator(".notice").all_inner_texts()
        assert notices[0] == "A note on <b>this</b> run." and "libra-d2 plan" in notices[1]
        names = page.locator("tbody th").all_text_contents()
        assert all(n * 9 in names for n in NASTY)  # as text, not as elements
