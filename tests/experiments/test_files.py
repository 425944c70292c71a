"""The files that an experiment leaves, and what is read back from them."""

import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from libra_d2.errors import UserError
from libra_d2.experiments.files import read_result, result_table, write_experiment
from libra_d2.experiments.latex import latex_table, latex_text
from libra_d2.experiments.results import METRICS

from ..support.experiment_results import made_up_result

NASTY = ("base|line", "[0.5] & 50% _x_", "=1+1", "*a* <b>$x^2$</b>", "a\nb\x1b[31m--\\c~{}`#")
ODD = {
    "as usual": {},
    "one variant": {"variants": ["baseline"]},
    "one seed": {"num_seeds": 1},
    "folds": {"folds": 3, "num_seeds": 2},
    "failed runs": {"failed": [("bfp", 2), ("all", 1)]},
    "only failed runs": {"variants": ["a", "b"], "num_seeds": 1, "failed": [("a", 1), ("b", 1)]},
    "undefined values": {"undefined": ["APs", "WBC"]},
    "no classes": {"classes": []},
    "nothing more": {"costs": False, "imbalances": False},
    "odd names": {"variants": NASTY, "classes": NASTY},
}
odd = pytest.mark.parametrize("options", ODD.values(), ids=ODD.keys())


@odd
def test_what_is_read_equals_what_was_written(tmp_path, options):
    result = made_up_result(**options)
    write_experiment(str(tmp_path / "new" / "exp"), result)
    assert read_result(str(tmp_path / "new" / "exp" / "experiment.json")) == result


@pytest.mark.parametrize("found", [{"format": 2}, {"format": True}, {"format": "1"}, {}, [], None])
def test_another_format_is_refused(tmp_path, found):
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match=r"format of .*experiment\.json must be 1, got") as e:
        read_result(str(path))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("baseline",), 7, "baseline must be a string, got 7"),
        (("runs", 0, "seed"), 1.5, "runs[0].seed must be an integer, got 1.5"),
        (("runs", 1, "metrics", "AP"), "x", "runs[1].metrics['AP'] must be a number, got 'x'"),
        (("variants", 0, "cost"), [], "variants[0].cost must be an object, got []"),
        (("comparisons",), {}, "comparisons must be a list, got {}"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, keys, value, message):
    write_experiment(str(tmp_path), made_up_result())
    path = tmp_path / "experiment.json"
    content = part = json.loads(path.read_text())
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=re.escape(message)) as e:
        read_result(str(path))
    assert "Run `libra-d2 experiment`" in str(e.value)
    del part[keys[-1]]
    if keys[-1] not in ("AP", "cost"):  # a metric, and a field with a default
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=f"{keys[-1]} is missing"):
            read_result(str(path))


def test_files_are_not_half_written(tmp_path):
    """A result that cannot be written leaves the files of the one before."""
    write_experiment(str(tmp_path), made_up_result())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    bad = made_up_result(num_seeds=2)
    bad.runs[0].metrics["AP"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        write_experiment(str(tmp_path), bad)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def test_the_csv_files_hold_every_run_and_every_effect(tmp_path):
    result = made_up_result(folds=2, num_seeds=3, failed=[("bfp", 2)], undefined=["APs"])
    write_experiment(str(tmp_path), result)
    rows = rows_of(tmp_path / "experiment.csv")
    assert len(rows) == len(result.runs) == 30
    for row, run in zip(rows, result.runs):
        assert (row["variant"], int(row["seed"]), int(row["fold"])) == (
            run.variant,
            run.seed,
            run.fold,
        )
        assert (row["folder"], row["error"]) == (run.folder, run.error)
        for name, value in {
            **{m: run.metrics.get(m) for m in METRICS},
            **{f"AP-{c}": run.classes.get(c) for c in ("RBC", "platelet")},
        }.items():
            assert (float(row[name]) if row[name] else None) == value
    rows = rows_of(tmp_path / "experiment_effects.csv")
    effects = [e for c in result.comparisons for e in (*c.metrics, *c.classes)]
    assert len(rows) == len(effects) == 4 * (6 + 3)
    for row, effect in zip(rows, effects):
        assert row["name"] == effect.metric
        assert row["difference"] == ("" if effect.difference is None else str(effect.difference))
        assert row["low"] == ("" if effect.low is None else str(effect.low))
    assert {row["kind"] for row in rows} == {"metric", "AP of class"}
    assert rows[0]["num_pairs"] == "6"


def test_no_name_becomes_a_formula_in_a_spreadsheet(tmp_path):
    write_experiment(str(tmp_path), made_up_result(NASTY, classes=NASTY))
    for name in ("experiment.csv", "experiment_effects.csv"):
        with open(tmp_path / name, encoding="utf-8", newline="") as f:
            cells = {cell for row in csv.reader(f) for cell in row}
        assert "'=1+1" in cells and "=1+1" not in cells


def markdown_rows(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]


@odd
def test_all_rows_of_a_table_in_markdown_have_the_same_columns(tmp_path, options):
    result = made_up_result(**options)
    write_experiment(str(tmp_path), result)
    text = (tmp_path / "experiment.md").read_text()
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) >= 2
    for table in tables:
        assert len({len(row) for row in markdown_rows(table)}) == 1
    assert "<b>" not in text.replace("\\<", "") and "\x1b" not in text


def test_the_tables_show_mean_spread_seeds_and_intervals(tmp_path):
    result = made_up_result(failed=[("bfp", 2)])
    write_experiment(str(tmp_path), result)
    rows = [
        [cell.strip() for cell in row]
        for row in markdown_rows((tmp_path / "experiment.md").read_text())
    ]
    ap, effect = result.variants[2].metrics["AP"], result.comparisons[1].metrics[0]
    first, seeds = [row for row in rows if row[0] == "bfp"][:2]
    assert first[1] == f"{ap.mean:.2f} ± {ap.std:.2f}" and first[-1] == "4 of 5"
    values = [r.metrics.get("AP") for r in result.runs if r.variant == "bfp"]
    assert seeds[1:] == ["no result" if v is None else f"{v:.2f}" for v in values]
    assert seeds[2] == "no result"
    (row,) = [row for row in rows if row[:2] == ["bfp", "AP"]]
    assert row[2:4] == [
        f"{effect.difference:+.2f}",
        f"[{effect.low:+.2f}, {effect.high:+.2f}]",
    ]
    assert row[-2:] == ["7", "4"]
    text = result_table(result)
    assert result.comparisons[0].statement in text and f"{ap.mean:.2f} ± {ap.std:.2f}" in text
    assert "runs/bfp/seed2 has no result: FloatingPointError" in text


@odd
def test_the_table_for_the_terminal_has_no_control_characters(options):
    text = result_table(made_up_result(**options))
    assert all(c.isprintable() or c == "\n" for c in text)


def test_many_classes_are_cut_in_markdown_only(tmp_path):
    write_experiment(str(tmp_path), made_up_result(classes=[f"class {i}" for i in range(45)]))
    text = (tmp_path / "experiment.md").read_text()
    assert "| class 39 " in text and "| class 40 " not in text
    assert "5 more classes are in `experiment_effects.csv`" in text
    assert len(rows_of(tmp_path / "experiment_effects.csv")) == 4 * (6 + 45)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no_bfp", r"no\_bfp"),
        ("50% & more", r"50\% \& more"),
        ("a\\b", r"a\textbackslash{}b"),
        ("x^2~{y}", r"x\textasciicircum{}2\textasciitilde{}\{y\}"),
        ("#1 $5", r"\#1 \$5"),
        ("<a|b>", r"\textless{}a\textbar{}b\textgreater{}"),
        ("a-b", "a-b"),
        ("a--b", "a-{}-b"),
        ("[2ex]", "{[}2ex]"),
        ("*", "{*}"),
        ("a\nb", r"a\textbackslash{}nb"),
        ("猫", "猫"),
    ],
)
def test_special_characters_are_escaped_in_latex(text, expected):
    assert latex_text(text) == expected


@odd
def test_the_latex_table_is_complete(options):
    result = made_up_result(**options)
    text = latex_table(result)
    body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(result.variants)
    columns = len(re.search(r"\{tabular\}\{(\w+)\}", text)[1])
    for line in body:
        assert line.endswith(r"\\")
        assert len(re.findall(r"(?<!\\)&", line)) == columns - 1
    assert text.count("{") == text.count("}")


def test_metrics_that_no_run_has_are_left_out_in_latex():
    assert "AP$_S$" in latex_table(made_up_result())
    assert "AP$_S$" not in latex_table(made_up_result(undefined=["APs"]))


def test_the_latex_table_has_the_numbers():
    result = made_up_result()
    ap, effect = result.variants[1].metrics["AP"], result.comparisons[0].metrics[0]
    text = latex_table(result)
    assert rf"sampling & ${ap.mean:.1f} \pm {ap.std:.1f}$ &" in text
    assert rf"& ${effect.difference:+.1f}\;[{effect.low:+.1f}, {effect.high:+.1f}]$ \\" in text
    only = replace(result, seeds=[3], method="Made up: 95 % of a_b.")
    assert r"(seed 3)" in latex_table(only) and r"Made up: 95 \% of a\_b." in latex_table(only)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX")
def test_latex_accepts_the_table(tmp_path):
    table = latex_table(made_up_result(NASTY))
    text = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n%s\\end{document}\n"
    (tmp_path / "t.tex").write_text(text % table)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:]
