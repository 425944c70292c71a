"""The page of an experiment, in a headless Chromium."""

import json
import shutil

import pytest

from libra_d2.experiments.files import write_experiment
from libra_d2.experiments.page import write_page
from libra_d2.experiments.page.curves import charts, mean_curve, read_curves
from libra_d2.experiments.page.plots import forest, kind_of
from libra_d2.experiments.page.run_rows import links
from libra_d2.experiments.page.scales import scale_of

from ..support.browser import opened, until
from ..support.experiment_results import made_up_result, write_runs

browser_test = pytest.mark.browser
NASTY = ("<script>alert(1)</script>", "\"&'", "%{x}<!--", "long_name_" * 9, "many words " * 8)
HOSTILE = '"><img src=x onerror=alert(1)>'


def written(folder, *, runs=True, **options):
    """Path of the page, and the result."""
    result = made_up_result(**options)
    if runs:
        write_runs(folder, result)
    write_page(str(folder / "experiment.html"), result)
    return folder / "experiment.html", result


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    return written(folder, failed=[("bfp", 2)])


# In the browser ------------------------------------------------------------------------------


@browser_test
def test_the_metric_switches_plots_and_tables(browser, usual):
    path, result = usual
    with opened(browser, path) as page:
        for metric in ("AP", "APs", "AP50"):
            page.select_option("#metric", label=metric)
            for comparison in result.comparisons:
                (effect,) = [e for e in comparison.metrics if e.metric == metric]
                row = page.locator("#differences .forest .row:visible", has_text=comparison.variant)
                text = f"{effect.difference:+.2f} [{effect.low:+.2f}, {effect.high:+.2f}]"
                assert text in row.first.inner_text()
            assert page.locator("#differences .forest:visible").count() == 1
            assert page.locator(f"#differences h3:visible:text-is('{metric} of every run')").count()
        page.locator("#differences details:visible summary").first.press("Enter")
        assert page.locator("#differences-AP50").is_visible()
        # The interval lies where its numbers say: zero, then the two ends, from left to right.
        effect = result.comparisons[3].metrics[1]
        svg = page.locator("#differences .forest:visible .row").nth(3).locator("svg")
        zero, low, high, mark = (
            svg.locator(selector).bounding_box()["x"]
            for selector in (".zero", ".interval >> nth=1", ".interval >> nth=2", "circle")
        )
        assert zero < low < mark < high
        middle = svg.locator("circle").bounding_box()
        share = (middle["x"] + middle["width"] / 2 - zero) / (high - zero)
        assert share == pytest.approx(effect.difference / effect.high, abs=0.02)


@browser_test
def test_every_run_is_a_dot_a_curve_and_a_row(browser, usual):
    path, result = usual
    finished = [run for run in result.runs if not run.error]
    with opened(browser, path) as page:
        assert page.locator("#differences .dots:visible circle").count() == len(finished) == 24
        for chart in page.locator(".plot").all():
            assert chart.locator("polyline.run").count() == 24
            assert chart.locator("polyline.mean").count() == 5
        page.locator(".legend input").nth(1).uncheck()
        assert page.locator(".plot >> nth=0 >> polyline:not(.off)").count() == 24 + 5 - 6
        assert page.locator("#runs-table tbody tr").count() == 25
        assert "the loss became NaN" in page.locator("#runs-table tr.failed").inner_text()
        assert (
            "1 of 25 runs has no result: runs/bfp/seed2." in page.locator("#summary").inner_text()
        )
        assert page.locator("#curves >> text=are not drawn").count() == 1  # the failed one
        link = page.locator("#runs-table a").first
        assert link.get_attribute("href") == "./runs/baseline/seed1/analysis/report.html"


@browser_test
def test_pointing_at_a_curve_tells_its_values(browser, usual):
    path, result = usual
    with opened(browser, path) as page:
        page.locator(".plot svg").first.scroll_into_view_if_needed()
        for box in page.locator(".legend input").all()[:-1]:
            box.uncheck()
        area = page.locator(".plot svg").first.bounding_box()
        page.mouse.move(area["x"] + area["width"] - 2, area["y"] + 8)
        text = page.locator(".pointed").first
        until(page, "document.querySelector('polyline.near')")
        name, _, rest = text.inner_text().partition(": ")
        assert name.startswith("all, ") and rest.endswith("at iteration 600")
        values = [r.metrics["AP"] for r in result.runs if r.variant == "all"]
        assert min(values) - 0.1 <= float(rest.split(" ")[0]) <= max(values) + 0.1
        page.mouse.move(area["x"] - 40, area["y"])
        until(page, "!document.querySelector('polyline.near')")


OUTSIDE = """() => {
  const width = document.documentElement.clientWidth;
  return [...document.querySelectorAll("body *")].filter((e) => {
    const place = e.getBoundingClientRect();
    const inside = e.closest(".scroll, nav, .skip, polyline, legend");
    return place.width && !inside && (place.right > width + 1 || place.left < -1);
  }).map((e) => e.outerHTML.slice(0, 99));
}"""
# Labels of an axis and of rows that lie on each other.
OVERLAPS = """() => {
  const found = [];
  for (const axis of document.querySelectorAll(".row.axis svg, .x-ticks, .y-ticks")) {
    const labels = [...axis.children].map((e) => e.getBoundingClientRect()).filter((p) => p.width);
    for (let i = 0; i < labels.length; i++) for (let j = 0; j < i; j++) {
      const [a, b] = [labels[i], labels[j]];
      if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
        found.push(axis.outerHTML.slice(0, 99));
    }
  }
  return found;
}"""


@browser_test
@pytest.mark.parametrize("options", [{}, {"variants": NASTY, "classes": NASTY, "folds": 2}])
def test_it_fits_a_phone_and_a_desk(browser, tmp_path, options):
    path, _ = written(tmp_path, **{"num_seeds": 2, **options})
    with opened(browser, path, width=360, height=740) as page:
        for width in (360, 1280):
            page.set_viewport_size({"width": width, "height": 740})
            for index in (0, 3):
                page.select_option("#metric", index=index)
                assert page.evaluate("document.documentElement.scrollWidth") == width
                assert page.evaluate(OUTSIDE) == []
                assert page.evaluate(OVERLAPS) == []


CONTRAST = """(selector) => {
  const values = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (color) => values(color).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const e = document.querySelector(selector);
  const style = getComputedStyle(e);
  const drawn = e instanceof SVGElement && e.tagName !== "text" ? style.stroke : style.color;
  const panel = getComputedStyle(e.closest("section, footer")).backgroundColor;
  const [a, b] = [light(drawn), light(panel)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""


@browser_test
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_can_be_read(browser, usual, scheme):
    """Text has a contrast of 4.5 or more and marks one of 3 or more, as WCAG asks for."""
    with opened(browser, usual[0], color_scheme=scheme) as page:
        texts = (".read", ".numbers", ".axis text", ".pointed", ".level-high", "td", "dt")
        for selector in (*texts, "tr.failed th", ".notice", ".statements strong"):
            assert page.evaluate(CONTRAST, selector) >= 4.5, selector
        marks = [".interval", ".zero", ".dots .mean", *(f"polyline.hue-{i}" for i in range(5))]
        for selector in marks:
            assert page.evaluate(CONTRAST, selector) >= 3, selector
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.click("#theme")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


@browser_test
def test_names_are_text_wherever_they_stand(browser, tmp_path):
    """No script runs and nothing is asked for, which `opened` checks."""
    names = [f"{HOSTILE}{i}" for i in range(3)] + list(NASTY[:2])
    path, _ = written(
        tmp_path, runs=False, variants=names, classes=names, num_seeds=2, failed=[(names[0], 1)]
    )
    with opened(browser, path) as page:
        assert page.locator("[onerror], main script, main img").count() == 0
        assert page.locator("#variants-table tbody th").all_inner_texts() == names
        assert page.locator(".statements strong").all_inner_texts() == names[1:]
        page.select_option("#class-variant", label=names[2])
        shown = page.locator("#classes .forest:visible .name").all_inner_texts()
        assert sorted(shown) == sorted(names)


@browser_test
def test_the_keyboard_and_readers_reach_everything(browser, usual):
    with opened(browser, usual[0]) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        nameless = page.evaluate(
            "[...document.querySelectorAll('input, select, button, [role=region], [role=img]')]"
            ".filter((e) => !(e.labels && e.labels.length) && !e.getAttribute('aria-label')"
            " && !e.textContent.trim()).map((e) => e.outerHTML.slice(0, 80))"
        )
        assert nameless == []
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(set(ids)) == len(ids)
        page.locator("#variants-table th:nth-child(2) button").press("Enter")
        first = page.locator("#variants-table tbody th").first
        assert first.inner_text() == "all"  # the highest AP


@browser_test
def test_the_results_show_without_javascript(browser, usual):
    with opened(browser, usual[0], script=False) as page:
        assert page.locator("#variants-table").is_visible()
        assert page.locator("#differences .forest").first.is_visible()
        assert page.locator(".plot polyline").first.is_visible()
        assert not page.locator("#metric").is_visible()
        assert not page.locator("#theme").is_visible()


ODD = {
    "one variant": {"variants": ["only"]},
    "one run": {"variants": ["only"], "num_seeds": 1, "classes": [], "costs": False},
    "only failed runs": {"variants": ["a", "b"], "num_seeds": 1, "failed": [("a", 1), ("b", 1)]},
    "undefined values": {"undefined": ["AP", "APs", "WBC"], "num_seeds": 2},
    "no runs' files": {"runs": False, "imbalances": False},
    "many classes": {"classes": [f"class {i}" for i in range(400)], "num_seeds": 2},
}


@browser_test
@pytest.mark.parametrize("options", ODD.values(), ids=ODD.keys())
def test_odd_results_are_shown(browser, tmp_path, options):
    path, result = written(tmp_path, **options)
    assert path.stat().st_size < 2_000_000
    with opened(browser, path, width=360) as page:
        assert page.locator("#variants-table tbody tr").count() == len(result.variants)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        if len(result.variants[0].classes) > 300:
            assert "300 classes with the largest differences, of 400" in page.inner_text("#classes")
            assert page.locator("#class-table tbody tr").count() == 300


# Without a browser ---------------------------------------------------------------------------


def test_all_files_are_written_together(tmp_path):
    write_experiment(str(tmp_path), made_up_result())
    found = sorted(p.name for p in tmp_path.iterdir())
    assert found == [
        *("experiment.csv", "experiment.html", "experiment.json", "experiment.md"),
        *("experiment.tex", "experiment_effects.csv"),
    ]


def test_runs_without_metrics_are_skipped_and_named(tmp_path):
    result = made_up_result(num_seeds=2)
    write_runs(tmp_path, result)
    shutil.rmtree(tmp_path / "runs/all/seed1")
    (tmp_path / "runs/bfp/seed2/metrics.json").write_text("")
    found, skipped = read_curves(str(tmp_path), result.runs)
    assert skipped == ["runs/all/seed1"]
    assert [c.run.folder for c in found] == [
        run.folder for run in result.runs if run.folder not in skipped
    ]
    points = found[0].points["AP"]
    assert points[-1] == (600, pytest.approx(result.runs[0].metrics["AP"]))
    assert len(found[0].points["total_loss"]) == 30


def test_curves_of_several_test_sets_and_not_finite_values(tmp_path):
    result = made_up_result(["a"], num_seeds=1)
    folder = tmp_path / result.runs[0].folder
    folder.mkdir(parents=True)
    records = [
        {"iteration": 9, "one/bbox/AP": 5.0, "two/bbox/AP": 7.0, "total_loss": float("nan")},
        {"iteration": 19, "one/bbox/AP": 6.0, "two/bbox/AP": 8.0, "total_loss": True},
    ]
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, records)))
    (curves,), _ = read_curves(str(tmp_path), result.runs)
    assert curves.points == {"AP": [(10, 5.0), (20, 6.0)]}
    assert [chart.title for chart in charts(result, [curves])] == ["Validation AP"]


def test_the_mean_is_of_the_iterations_that_all_runs_have():
    a, b = [(10, 1.0), (20, 2.0), (30, 3.0)], [(10, 3.0), (30, 5.0), (40, 9.0)]
    assert mean_curve([a, b]) == [(10, 2.0), (30, 4.0)]
    assert mean_curve([a]) == mean_curve([]) == []


def test_many_points_and_runs_make_no_large_page(tmp_path):
    path, _ = written(tmp_path, variants=["a", "b"], num_seeds=3)
    small = path.stat().st_size
    for metrics in tmp_path.glob("runs/*/*/metrics.json"):
        lines = (json.dumps({"iteration": i, "total_loss": 1 / (i + 1)}) for i in range(5000))
        metrics.write_text("\n".join(lines))
    write_page(str(path), made_up_result(["a", "b"], num_seeds=3))
    assert path.stat().st_size < small + 40_000


def test_ticks_are_round_and_inside():
    assert [t.text for t in scale_of([0, 2.64]).ticks(signed=True)] == ["0", "+1", "+2"]
    assert scale_of([-0.3, 0.2]).ticks(signed=True)[0].text == "-0.3"
    for values in ([], [5.0], [0.0], [1e-12, 0], [38.1, 39.9], [-1e6, 1e6], [20, 180_000]):
        scale = scale_of(values)
        ticks = scale.ticks()
        assert 1 <= len(ticks) <= 11
        assert all(0 <= tick.at <= 100 for tick in ticks)
        assert len({tick.text for tick in ticks}) == len(ticks)


def test_marks_are_filled_only_if_the_interval_excludes_zero():
    effects = made_up_result().comparisons[0].metrics
    for effect in effects:
        expected = "higher" if effect.low > 0 else "lower" if effect.high < 0 else "unclear"
        assert kind_of(effect) == expected
    assert kind_of(None) == "unclear"
    rows = forest((e.metric, e) for e in effects).rows
    assert all(row.low < row.at < row.high for row in rows)


def test_links_stay_in_the_folder_and_are_encoded(tmp_path):
    analysis = tmp_path / "runs/a b#?/analysis"
    (analysis / "set 1").mkdir(parents=True)
    (analysis / "set 1/report.html").write_text("")
    (analysis / "analysis.json").write_text("")
    (tmp_path / "runs/a b#?.log").write_text("")
    assert [link.url for link in links(str(tmp_path), "runs/a b#?")] == [
        "./runs/a%20b%23%3F/analysis/set%201/report.html",
        "./runs/a%20b%23%3F/analysis/analysis.json",
        "./runs/a%20b%23%3F.log",
    ]
    assert links(str(tmp_path), "runs/none") == []
