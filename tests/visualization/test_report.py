"""The HTML report, in a headless Chromium."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from libra_d2.errors import UserError
from libra_d2.evaluation.analysis.result_json import from_json
from libra_d2.evaluation.analysis.results import Analysis, RunComparison
from libra_d2.visualization.report import bounds, write_report
from libra_d2.visualization.report.advice import advice
from libra_d2.visualization.report.pictures import MAX_SIDE

from ..support.browser import opened, until
from .random_analysis import SIZE, random_analysis, random_comparison, tally_at

pytestmark = pytest.mark.browser

NASTY = ["<script>alert(1)</script>", "\"&'", "<!--", "</script>", "猫 & œuf", "%{x}", "__proto__"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for i in range(6):
        paths.append(folder / f"{i}.png")
        pixels = np.random.RandomState(i).randint(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    paths[1] = folder / "missing.png"
    paths[2].write_bytes(b"no image")
    return paths


@pytest.fixture(scope="module")
def one_run(tmp_path_factory, images):
    """Path and analysis."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    analysis = random_analysis(paths=images)
    write(str(path), analysis)
    return path, analysis


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("report") / "report.html"
    a, b = (random_analysis(paths=images, seed=seed) for seed in (1, 2))
    comparison = random_comparison(a, b)
    write(str(path), a, other=b, comparison=comparison, num_images=4)
    return path, a, b, comparison


def write(path, analysis, *, other=None, comparison=None, **options):
    """A report of what the JSON files hold."""
    write_report(
        path,
        read_back(analysis),
        other=other and read_back(other),
        comparison=comparison and from_json(RunComparison, comparison, "compare.json"),
        **options,
    )


def read_back(analysis):
    return from_json(Analysis, analysis, "analysis.json")


def slide(page, selector, value):
    page.locator(selector).first.fill(str(value))
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def column(page, table, index):
    return page.locator(f"#{table} tbody tr > :nth-child({index + 1})").all_inner_texts()


def counts(page, selector="#frames .counts"):
    return page.locator(selector).all_inner_texts()


def expected_counts(images, threshold):
    found = []
    for image in images:
        tally = tally_at(image["objects"], image["detections"], threshold)
        found.append("{tp} TP, {fp} FP, {fn} FN".format(**tally))
    return found


def visible_boxes(page, kind):
    return page.locator(f"#frames .box.kind-{kind}:not(.off)").count()


def num_boxes(images, kind, threshold):
    return sum(
        d["kind"] == kind and d["score"] >= threshold for i in images for d in i["detections"]
    )


def test_sliders_move_boxes_and_counts(browser, one_run):
    """Below the threshold a detection vanishes, and what it found is missed: in every picture."""
    path, analysis = one_run
    images = analysis["images"]
    with opened(browser, path) as page:
        tallies = ["{tp} TP, {fp} FP, {fn} FN".format(**i) for i in images]
        assert counts(page) == tallies == expected_counts(images, 0.3)
        for threshold in (0, 0.55, 1):
            slide(page, "#gallery-controls .threshold", threshold)
            assert counts(page) == expected_counts(images, threshold)
            for kind in ("hit", "background", "duplicate"):
                assert visible_boxes(page, kind) == num_boxes(images, kind, threshold)
        # All sliders are one, and the curves follow.
        assert page.locator("#threshold-controls .threshold").input_value() == "1"
        assert "threshold of 1.00: no detections" in page.locator("#readout").inner_text()
        curve = analysis["curves"][""]
        slide(page, "#threshold-controls .threshold", 0.5)
        last = sum(s >= 0.5 for s in curve["score"]) - 1
        text = page.locator("#readout").inner_text()
        assert f"precision {curve['precision'][last]:.1%}" in text
        assert f"recall {curve['recall'][last]:.1%}" in text
        line = page.evaluate("document.getElementById('chart-f1').layout.shapes[0].x0")
        dot = page.evaluate("document.getElementById('chart-pr').data.at(-1).x[0]")
        assert line == 0.5 and dot == pytest.approx(curve["recall"][last], abs=1e-5)
        page.click("#best")
        best = analysis["overall"]["best_threshold"]
        shown = "document.querySelector('.threshold-value').textContent"
        until(page, f"{shown} === '{int(best * 100) / 100:.2f}'")
        assert not page.locator("#compare").is_visible()
        assert not page.locator("nav >> text=Two runs").is_visible()


def test_kinds_toggle(browser, one_run):
    path, analysis = one_run
    with opened(browser, path) as page:
        slide(page, "#gallery-controls .threshold", 0)
        before = visible_boxes(page, "background")
        assert before == num_boxes(analysis["images"], "background", 0) > 0
        page.locator("#gallery-controls [data-kind=background]").uncheck()
        until(page, "!document.querySelector('#frames .kind-background:not(.off)')")
        assert visible_boxes(page, "duplicate") > 0
        assert counts(page) == expected_counts(analysis["images"], 0)  # they count what is there
        assert not page.locator("#enlarged-controls [data-kind=background]").is_checked()
        assert visible_boxes(page, "found") == 0
        page.locator("#gallery-controls [data-kind=found]").check()
        until(page, "document.querySelector('#frames .kind-found:not(.off)')")


def test_boxes_lie_where_they_are_in_the_image_even_if_it_is_missing(browser, one_run):
    path, analysis = one_run
    with opened(browser, path) as page:
        image = analysis["images"][0]
        frame = page.locator("#frames .canvas").first.bounding_box()
        best = image["detections"][0]
        drawn = page.locator("#frames svg").first.locator(".box .edge").last.bounding_box()
        scale = frame["width"] / SIZE[0]
        assert frame["height"] / SIZE[1] == pytest.approx(scale, rel=0.01)
        x, y, width, height = (v * scale for v in best["bbox"])
        edge = 5  # pixels of the line, twice
        assert drawn["x"] - frame["x"] == pytest.approx(x, abs=edge)
        assert drawn["y"] - frame["y"] == pytest.approx(y, abs=edge)
        assert drawn["width"] == pytest.approx(width, abs=edge)
        assert drawn["height"] == pytest.approx(height, abs=edge)
        assert page.locator("#frames img").count() == 4
        loaded = page.locator("#frames img").evaluate_all("all => all.map((i) => i.naturalWidth)")
        assert loaded == [SIZE[0]] * 4
        notes = sorted(page.locator("#frames .note").all_inner_texts())
        assert notes == [
            "the image cannot be read: No such file or directory",
            "the image cannot be read: not an image of a supported format",
        ]
        assert len(page.locator("#frames .frame").all()) == 6


def test_tables_sort_with_the_mouse_and_the_keyboard(browser, one_run):
    path, analysis = one_run
    with opened(browser, path) as page:
        page.click("#image-table th:nth-child(3) button")
        false = [int(v) for v in column(page, "image-table", 2)]
        assert false == sorted((i["fp"] for i in analysis["images"]), reverse=True)
        head = page.locator("#image-table th:nth-child(3)").first
        assert head.get_attribute("aria-sort") == "descending"
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert [int(v) for v in column(page, "image-table", 2)] == sorted(false)
        assert head.get_attribute("aria-sort") == "ascending"
        page.locator("#image-table th:nth-child(1) button").first.focus()
        page.keyboard.press("Space")
        names = column(page, "image-table", 0)
        assert names == sorted(names)
        assert head.get_attribute("aria-sort") == "none"


def test_undefined_numbers_sort_last(browser, tmp_path):
    analysis = random_analysis(names=["a", "b", "c"])
    for c, ap in zip(analysis["classes"], (0.2, None, 0.9)):
        c["AP"] = ap
    write(str(tmp_path / "r.html"), analysis)
    with opened(browser, tmp_path / "r.html") as page:
        button = page.locator("#class-table th:nth-child(4) button").first
        for expected in (["90.0%", "20.0%", "\u2013"], ["20.0%", "90.0%", "\u2013"]):
            button.click()
            assert column(page, "class-table", 3) == expected


def test_pictures_are_enlarged_with_the_keyboard(browser, one_run):
    path, analysis = one_run
    with opened(browser, path) as page:
        page.locator("#frames .picture").nth(1).focus()
        page.keyboard.press("Enter")
        assert page.locator("#enlarged").is_visible()
        title = page.locator("#enlarged-title")
        names = [i["file_name"] for i in analysis["images"]]
        assert title.inner_text() == f"{names[1]} (2 of 6)"
        page.keyboard.press("ArrowRight")
        assert title.inner_text().startswith(names[2])
        for _ in range(4):
            page.keyboard.press("ArrowLeft")
        assert title.inner_text().startswith(names[4])  # round the end
        page.locator("#enlarged-controls .threshold").focus()
        page.keyboard.press("ArrowRight")  # here it moves the slider
        until(page, "document.querySelector('.threshold').value === '0.31'")
        assert title.inner_text().startswith(names[4])
        assert counts(page, "#enlarged .counts") == expected_counts(analysis["images"][4:5], 0.31)
        page.keyboard.press("Escape")
        assert not page.locator("#enlarged").is_visible()
        focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert focused == f"Enlarge {names[4]}"


def test_everything_can_be_reached_and_has_a_name(browser, two_runs):
    with opened(browser, two_runs[0]) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        nameless = page.evaluate(
            "[...document.querySelectorAll("
            "'input, select, button, dialog, [role=group], [role=region]')]"
            ".filter((e) => !(e.labels && e.labels.length) && !e.getAttribute('aria-label')"
            " && !e.getAttribute('aria-labelledby') && !e.textContent.trim())"
            ".map((e) => e.outerHTML.slice(0, 80))"
        )
        assert nameless == []
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(set(ids)) == len(ids)


def test_charts_have_hover_and_can_be_chosen_by_class(browser, one_run):
    path, _ = one_run
    with opened(browser, path) as page:
        drawn = page.evaluate(
            "[...document.querySelectorAll('.chart')].filter((e) => e.offsetParent)"
            ".map((e) => [e.id, !!e.querySelector('svg.main-svg')])"
        )
        assert len(drawn) == 9 and all(d for _, d in drawn)
        page.locator("#chart-tide").scroll_into_view_if_needed()
        bar = page.locator("#chart-tide .barlayer .point path").first.bounding_box()
        page.mouse.move(bar["x"] - 40, bar["y"])
        page.mouse.move(bar["x"] + 1, bar["y"] + bar["height"] / 2, steps=4)
        page.wait_for_selector("#chart-tide .hoverlayer .hovertext")
        assert "points of AP" in page.locator("#chart-tide .hoverlayer").text_content()
        page.locator("#chart-pr").scroll_into_view_if_needed()
        plot = page.locator("#chart-pr .nsewdrag").bounding_box()
        page.mouse.move(plot["x"] + 5, plot["y"] + 5)
        page.mouse.move(plot["x"] + plot["width"] / 2, plot["y"] + plot["height"] / 4, steps=4)
        page.wait_for_selector("#chart-pr .hoverlayer .hovertext")
        assert "score \u2265 0." in page.locator("#chart-pr .hoverlayer").text_content()
        page.select_option("#class", label="dog")
        assert "precision" in page.locator("#readout").inner_text()


def test_colours_follow_the_system_and_the_button_but_are_light_on_paper(browser, one_run):
    path, _ = one_run

    def colours(page):
        return page.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " document.getElementById('chart-pr').layout.font.color]"
        )

    with opened(browser, path, color_scheme="light") as page:
        light = colours(page)
        page.click("#theme")
        clicked = colours(page)
    with opened(browser, path, color_scheme="dark") as page:
        dark = colours(page)
        assert page.pdf().startswith(b"%PDF")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("#theme").inner_text() == "Light colors"
        page.emulate_media(color_scheme="light")
        until(page, "document.getElementById('theme').textContent === 'Dark colors'")
        assert colours(page) == light
    assert clicked == dark and light[0] != dark[0] and light[1] != dark[1]


def test_a_phone_scrolls_in_one_direction_only_also_when_turned(browser, two_runs):
    outside = (
        "[...document.querySelectorAll('.chart, .controls label, .readout, .picture, h2')]"
        ".filter((e) => e.getBoundingClientRect().right > innerWidth)"
        ".map((e) => e.outerHTML.slice(0, 80))"
    )
    fits = (
        "[...document.querySelectorAll('.chart')].filter((e) => e.offsetParent)"
        ".every((e) => Math.abs(e.querySelector('svg').clientWidth - e.clientWidth) < 2)"
    )
    with opened(browser, two_runs[0], width=320, has_touch=True, is_mobile=True) as page:
        for width in (320, 390, 844):
            page.set_viewport_size({"width": width, "height": 640})
            until(page, fits)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate(outside) == []
        page.set_viewport_size({"width": 390, "height": 844})
        table = page.locator("#class-table").locator("..")
        assert table.evaluate("(e) => e.scrollWidth > e.clientWidth")
        page.locator("#frames .picture").first.tap()
        box = page.locator("#enlarged").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_the_tables_show_without_javascript(browser, two_runs):
    path, a, *_ = two_runs
    with opened(browser, path, script=False) as page:
        assert page.locator("text=JavaScript is off").is_visible()
        assert column(page, "class-table", 0) == [c["name"] for c in a["classes"]]
        for name in ("class-table", "image-table", "mix-ups", "metric-differences"):
            assert page.locator(f"#{name}").is_visible()
        assert not page.locator("#thresholds").is_visible()
        assert not page.locator("#gallery").is_visible()
        page.locator("#where summary").first.click()
        assert page.locator("#where table").first.is_visible()


def test_the_page_runs_no_other_script_and_fetches_nothing(browser, one_run):
    """Were a name to get into the page as HTML, it could still do no harm."""
    add = "(e) => { document.body.append(Object.assign(document.createElement(e[0]), e[1])); }"
    url = "https://libra.invalid/"
    for element in (
        ["script", {"textContent": "window.harm = 1"}],
        ["img", {"src": url}],
        ["iframe", {"src": url}],
    ):
        with (
            pytest.raises(AssertionError, match="Content Security Policy"),
            opened(browser, one_run[0]) as page,
        ):
            page.evaluate(add, element)
            page.wait_for_timeout(100)
            assert page.evaluate("window.harm === undefined")


def test_two_runs_are_compared(browser, two_runs):
    path, a, b, comparison = two_runs
    with opened(browser, path) as page:
        assert page.locator("h1").inner_text() == "run 1 and run 2"
        for metric, shown in zip(comparison["metrics"], column(page, "metric-differences", 3)):
            assert shown == f"{100 * metric['difference']:+.1f}"
        error = page.evaluate("document.getElementById('chart-metrics').data[0].error_x")
        assert error["array"] == pytest.approx([8] * 6, abs=1e-2)
        assert error["arrayminus"] == pytest.approx([5] * 6, abs=1e-2)
        assert page.locator("#changed .pair").count() == 4
        other = {i["image_id"]: i for i in b["images"]}
        pairs = [i for image in a["images"][:4] for i in (image, other[image["image_id"]])]
        slide(page, "#changed-controls .threshold", 0.6)
        assert counts(page, "#changed .counts") == expected_counts(pairs, 0.6)
        assert page.evaluate("document.getElementById('chart-pr').data.length") == 4
        page.select_option("#confusion-run", label="run 2")
        z = page.evaluate("document.getElementById('chart-confusion').data[0].text")
        assert z == [[str(v) for v in row] for row in b["confusion"]["matrix"]]


def test_names_are_text_wherever_they_stand(browser, tmp_path):
    a = random_analysis(names=NASTY)
    b = random_analysis(names=NASTY, seed=1)
    for run, name in ((a, "<img src=x onerror=alert(1)>"), (b, "</title></script><!--")):
        run["settings"]["name"] = name
        for i, image in enumerate(run["images"]):
            image["file_name"] = f"{NASTY[image['image_id'] % len(NASTY)]}{i}\udc80.jpg"
    path = tmp_path / "<&'.html"
    write(str(path), a, other=b, comparison=random_comparison(a, b))
    with opened(browser, path) as page:
        assert column(page, "class-table", 0) == NASTY
        assert page.locator("#class option").all_inner_texts()[1:] == NASTY
        assert (
            page.locator("h1").inner_text().startswith("<img src=x onerror=alert(1)> and </title>")
        )
        ticks = page.locator("#chart-confusion .xtick text").all_text_contents()
        assert ticks[0].startswith("<script>alert(1)</scr")
        assert page.locator("#frames .file").count() == 6
        for i in range(len(NASTY)):
            page.select_option("#class", index=i + 1)
            assert "precision" in page.locator("#readout").inner_text()
        page.locator("#frames .picture").first.click()
        assert page.locator("#enlarged-title").inner_text()


LONG = [f"{'class_name_' * 7}{i:03}" for i in range(3)] + ["many words in a name " * 4, "cat"]
OVERFLOWING = """() => {
  const width = document.documentElement.clientWidth, found = [];
  const skipped = ".scroll, nav, .chart, .skip, #js-plotly-tester";
  for (const e of document.querySelectorAll("body *")) {
    const place = e.getBoundingClientRect();
    const outside = place.right > width + 1 || place.left < -1;
    if (place.width && outside && !e.closest(skipped)) found.push(e.outerHTML.slice(0, 99));
  }
  for (const chart of document.querySelectorAll(".chart")) {
    const room = chart.getBoundingClientRect();
    for (const text of chart.querySelectorAll("text")) {
      const place = text.getBoundingClientRect();
      const outside = place.right > room.right + 2 || place.left < room.left - 2;
      if (place.width && outside) found.push(`${chart.id}: ${text.textContent}`);
    }
  }
  for (const title of document.querySelectorAll("thead button span"))
    if (title.getBoundingClientRect().width > 180) found.push(title.outerHTML.slice(0, 99));
  return found;
}"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("num_runs", [1, 2])
def test_long_names_stay_within_the_page(browser, tmp_path, width, num_runs):
    """Of classes, files and runs, with and without blanks where a line could break."""
    runs = [random_analysis(names=LONG, seed=seed) for seed in range(num_runs)]
    for run, name in zip(runs, ("run_" + "x" * 96, "a run with many words " * 5)):
        run["settings"]["name"] = name
        for image in run["images"]:
            image["file_name"] = f"{'folder_' * 9}/{'z' * 150}{image['image_id']}.jpg"
    other = {"other": runs[1], "comparison": random_comparison(*runs)} if num_runs == 2 else {}
    write(str(tmp_path / "r.html"), runs[0], **other)
    with opened(browser, tmp_path / "r.html", width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(OVERFLOWING) == []
        cell = page.locator("#class-table tbody th").first
        assert cell.get_attribute("title") == LONG[0]  # the whole name, where it is cut off
        page.locator("#frames .picture").first.click()
        assert page.locator("#enlarged").evaluate("(d) => d.scrollWidth <= d.clientWidth")


HOSTILE = ['"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "https://example.org/x.png"]


def test_attributes_cannot_be_ended_by_names_or_values(browser, tmp_path):
    """No script runs and nothing is asked for, which `opened` checks."""
    attack = '1"><script>alert(1)</script><img src=x onerror=alert(1) x="'
    names = [f"{name} {'and more ' * 3}" for name in HOSTILE]
    analysis = random_analysis(names=names)
    analysis["settings"]["name"] = HOSTILE[0] * 2
    for image, name in zip(analysis["images"], names * 2):
        image.update(file_name=f"{name}\u202e\x1b[31m.jpg", path=f"/{name}", verdict=attack)
    result = read_back(analysis)  # which would refuse the values that are no numbers
    for first, key in ((result.classes, "num_objects"), (result.images, "tp")):
        first[0] = replace(first[0], **{key: attack})
    bins = result.calibration.bins
    bins[0] = replace(bins[0], count=attack)
    write_report(str(tmp_path / "r.html"), result)
    with opened(browser, tmp_path / "r.html") as page:
        assert page.locator("[onerror], [onmouseover], main script").count() == 0
        assert column(page, "class-table", 0) == [name.strip() for name in names]
        assert (
            page.locator("#class-table td[data-value]").first.get_attribute("data-value") == attack
        )
        for head in page.locator("#class-table button").all()[:3]:
            head.click()
            head.hover()


def test_a_report_of_ten_thousand_classes_is_small_and_says_so(tmp_path, monkeypatch):
    names = [f"class {i}" for i in range(60)]
    whole = random_analysis(names=names)
    for i, entry in enumerate(whole["classes"]):
        entry["num_objects"] = i
    monkeypatch.setattr(bounds, "MAX_CLASSES", 5)
    kept = bounds.shown_classes(read_back(whole))
    assert kept == names[-5:]
    small = bounds.bounded(read_back(whole), kept)
    assert [c.name for c in small.classes] == kept
    assert set(small.curves) == set(small.score_histogram.classes) == {"", *kept}
    matrix, all_counts = np.array(small.confusion.matrix), np.array(whole["confusion"]["matrix"])
    assert small.confusion.names[:6] == [*kept, "other classes"] and matrix.shape == (7, 7)
    assert np.array_equal(matrix[:5, :5], all_counts[55:60, 55:60])
    assert matrix.sum() == all_counts.sum() and matrix[5, 6] == all_counts[:55, 60].sum()
    comparison = random_comparison(whole, whole)
    write(str(tmp_path / "r.html"), whole, other=whole, comparison=comparison)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "the 5 classes with the most objects, of 60" in text
    assert text.count('title="class 3"') == 0 and ">class 30<" not in text


def test_images_outside_of_the_folder_are_shown_by_an_option_only(tmp_path, images, caplog):
    """Annotations of strangers name private files, or come with links to them."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "own.png").write_bytes(images[0].read_bytes())
    (inside / "link.png").symlink_to(images[3])
    (inside / "link_within.png").symlink_to(inside / "own.png")
    paths = [inside / "own.png", inside / "../inside/own.png", inside / "link_within.png"]
    outside = [images[4], inside / "link.png", inside / f"../{images[5]}"]
    analysis = random_analysis(paths=[*paths, *outside])
    analysis["settings"]["images"] = str(inside)
    for i, image in enumerate(sorted(analysis["images"], key=lambda image: image["image_id"])):
        image["path"] = str([*paths, *outside][i])
    write(str(tmp_path / "r.html"), analysis)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count("data:image/jpeg") == 3
    assert text.count("the image is outside of the image folder") == 3
    assert "3 images are left out of the report" in caplog.text
    assert "--allow-outside" in caplog.text
    write(str(tmp_path / "r.html"), analysis, allow_outside=True)
    assert (tmp_path / "r.html").read_text(encoding="utf-8").count("data:image/jpeg") >= 5


EXTREMES = {
    "nothing detected, undefined numbers": {"num_detections": 0, "gaps": True},
    "no images": {"num_images": 0},
    "one class, undefined numbers": {"names": ["only"], "gaps": True},
    "80 classes": {"names": [f"class number {i}" for i in range(80)]},
    "one image": {"num_images": 1, "num_detections": 1},
}


@pytest.mark.parametrize("options", EXTREMES.values(), ids=EXTREMES.keys())
def test_odd_analyses_are_shown(browser, tmp_path, options):
    a, b = random_analysis(**options), random_analysis(**options, seed=1)
    path = tmp_path / "r.html"
    write(str(path), a, other=b, comparison=random_comparison(a, b))
    with opened(browser, path, width=390) as page:
        slide(page, "#threshold-controls .threshold", 0.7)
        assert counts(page) == expected_counts(a["images"], 0.7)
        page.click("#best")
        page.click("#theme")
        page.click("#class-table th:nth-child(4) button")
        if len(a["classes"]) > 20:
            size = "document.getElementById('chart-confusion').data[0].z.length"
            assert page.evaluate(size) == 21
            page.select_option("#confusion-part", label="all")
            assert page.evaluate(size) == 81
        assert page.locator(".advice li").count() >= 1
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_many_images_make_no_large_file(tmp_path, images):
    """Only the worst have pictures and boxes, and the table ends."""
    analysis = random_analysis(num_images=5000, paths=[images[0]] * 5000)
    write(str(tmp_path / "large.html"), analysis, num_images=2)
    write(str(tmp_path / "small.html"), random_analysis(num_images=2), num_images=2)
    sizes = [(tmp_path / name).stat().st_size for name in ("large.html", "small.html")]
    assert sizes[0] - sizes[1] < 1_000_000
    text = (tmp_path / "large.html").read_text(encoding="utf-8")
    assert "500 of 5000" in text and text.count("data:image/jpeg") == 2


def test_pictures_are_scaled_and_odd_ones_noted(browser, tmp_path):
    Image.new("I;16", (2000, 500), 9000).save(tmp_path / "wide.png")
    analysis = random_analysis(num_images=1, paths=[tmp_path / "wide.png"])
    write(str(tmp_path / "r.html"), analysis)
    with opened(browser, tmp_path / "r.html") as page:
        assert page.locator("#frames img").evaluate("(i) => i.naturalWidth") == MAX_SIDE
        note = "the image is 2000 x 500, but its annotations say 320 x 240"
        assert page.locator("#frames .note").inner_text() == note


def test_labels_to_check_are_listed_worst_first(browser, tmp_path):
    analysis = random_analysis()
    write(str(tmp_path / "none.html"), analysis)
    with opened(browser, tmp_path / "none.html") as page:
        assert page.locator("#labels").is_hidden()
        assert page.get_by_role("link", name="Labels to check").count() == 0
    error = {
        **{"image_id": 1, "kind": "missing label", "suspicion": 0.4, "score": 0.9, "iou": 0.0},
        **{"annotation_id": None, "class": None, "bbox": None, "detected_class": "cat"},
        "detected_bbox": [1.0, 2.0, 30.0, 40.0],
    }
    analysis["label_errors"] = [{**error, "file_name": HOSTILE[0]}] + [
        {**error, "file_name": "b.jpg", "class": "dog", "bbox": [5.0, 6.0, 7.0, 8.0], "iou": 0.6}
    ] * 600
    counts = {"missing_labels": 1, "wrong_classes": 0, "badly_placed": 2}
    analysis["images_to_check"] = [
        {"image_id": 1, "file_name": "b.jpg", "expected_corrections": 2.5, **counts}
    ]
    write(str(tmp_path / "some.html"), analysis)
    with opened(browser, tmp_path / "some.html") as page:
        assert page.get_by_role("link", name="Labels to check").count() == 1
        assert column(page, "check-table", 1) == ["2.50"]
        assert column(page, "label-table", 0)[:2] == [HOSTILE[0], "b.jpg"]
        assert column(page, "label-table", 3)[:2] == ["\u2013", "dog"]
        assert column(page, "label-table", 7)[:2] == ["1, 2, 30, 40", "5, 6, 7, 8"]
        assert "500 of 601; label_errors.csv contains all" in page.locator("#labels").inner_text()


def test_mistakes_are_told_in_a_line(tmp_path):
    analysis = random_analysis()
    with pytest.raises(UserError, match=r"cannot be written: No such file"):
        write(str(tmp_path / "no" / "r.html"), analysis)
    assert list(tmp_path.iterdir()) == []


def test_advice_names_the_costliest_error_the_weakest_class_and_the_threshold():
    analysis = random_analysis()
    for error in analysis["tide"]["errors"]:
        error.update(count=7, AP_cost=0.123 if error["name"] == "duplicate" else 0.01)
    analysis["classes"][1].update(name="œuf", AP=0.001, recall=0.25, num_objects=12)
    analysis["overall"].update(f1=0.5, best_f1=0.6, best_threshold=0.7, num_detections=9)
    first, second, third = advice(read_back(analysis))
    assert "more than once (7 times" in first and "AP50 would be 12.3 points higher" in first
    assert second == "The weakest class is “œuf”: AP 0.1%, 12 objects, of which 25% are detected."
    assert third == (
        "Use a score threshold of 0.70 instead of 0.30: F1 rises from 50.0% to 60.0%. "
        "`--score-threshold best` uses the best one of each class."
    )
    analysis["overall"]["best_f1"] = 0.505
    assert advice(read_back(analysis))[2].startswith(
        "The score threshold of 0.30 is close to the best one of all classes (F1 50.0%). "
    )
    analysis["overall"]["num_detections"] = 0
    assert advice(read_back(analysis))[0] == "No detection has a score of 0.30 or more."
    analysis["overall"]["num_objects"] = 0
    assert len(advice(read_back(analysis))) == 1
