import dataclasses

import pytest

from libra_d2.errors import UserError
from libra_d2.experiments.design import (
    Design,
    Run,
    Variant,
    differences,
    load_design,
    overrides_from_file,
    parse_seeds,
)

DESIGN = Design(
    base="configs/libra_mobilenet_v2.yaml",
    variants=(Variant("baseline", ("MODEL.BFP.ENABLED", "False")), Variant("all", ())),
    baseline="baseline",
    seeds=(1, 2),
    train="coco:train.json,images",
    test="coco:val.json,images",
    folds=0,
    group="",
    plan=False,
    output="output/exp",
    overrides=("SOLVER.MAX_ITER", "10"),
)


def changed(**values):
    return dataclasses.replace(DESIGN, **values)


def variants(*names):
    return tuple(Variant(name, ()) for name in names)


def test_runs_compare_the_variants_of_a_seed_before_the_next_seed():
    assert DESIGN.runs() == [
        Run("baseline", 1, 0, "runs/baseline/seed1"),
        Run("all", 1, 0, "runs/all/seed1"),
        Run("baseline", 2, 0, "runs/baseline/seed2"),
        Run("all", 2, 0, "runs/all/seed2"),
    ]


def test_each_fold_is_a_run():
    design = changed(folds=2, test="", seeds=(7,), variants=variants("baseline"))
    assert [(r.fold, r.folder) for r in design.runs()] == [
        (1, "runs/baseline/seed7-fold1"),
        (2, "runs/baseline/seed7-fold2"),
    ]


def test_overrides_of_a_variant_follow_those_of_all():
    assert DESIGN.overrides_of("baseline") == [
        *("SOLVER.MAX_ITER", "10"),
        *("MODEL.BFP.ENABLED", "False"),
    ]


@pytest.mark.parametrize(
    "design",
    [
        DESIGN,
        changed(folds=3, test="", group=r"(p\d+)", plan=True, overrides=()),
        changed(
            # Texts that YAML would read as numbers, and names that it would read as truth values.
            variants=(Variant("1", ("A", "(0.1,)")), Variant("yes", ("A", "1e3", "B", ""))),
            baseline="1",
            train="coco:ä: b.json,'c'",
        ),
    ],
    ids=["plain", "folds", "odd texts"],
)
def test_is_read_as_it_was_saved(design, tmp_path):
    design = dataclasses.replace(design, output=str(tmp_path / "exp"))
    design.save()
    assert load_design(design.output) == design


def test_may_be_read_from_a_folder_that_was_moved(tmp_path):
    changed(output=str(tmp_path / "a")).save()
    (tmp_path / "a").rename(tmp_path / "b")
    assert load_design(str(tmp_path / "b")) == changed(output=str(tmp_path / "b"))


def test_refuses_a_folder_without_a_design(tmp_path):
    with pytest.raises(UserError, match=r"has no experiment\.yaml"):
        load_design(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "base: a", "seeds: 3"],
)
def test_refuses_a_file_that_is_no_design(content, tmp_path):
    (tmp_path / "experiment.yaml").write_text(content)
    with pytest.raises(UserError, match="must have the keys base, variants"):
        load_design(str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("folds: 0", "folds: none"),
        ("folds: 0", "folds: false"),
        ("plan: false", "plan: 0"),
        ("train: coco", "train: 1 #"),
        ("seeds:\n- 1\n- 2", "seeds: 2"),
        ("  all: []", "  all: 1"),
    ],
)
def test_refuses_values_of_wrong_types(old, new, tmp_path):
    changed(output=str(tmp_path)).save()
    path = tmp_path / "experiment.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match="has a value of a wrong type"):
        load_design(str(tmp_path))


def test_names_what_differs():
    other = changed(
        seeds=(1,),
        variants=(Variant("baseline", ()), Variant("loss", ())),
        overrides=(),
        output="elsewhere",
    )
    assert differences(DESIGN, DESIGN) == differences(DESIGN, changed(output="elsewhere")) == []
    assert differences(DESIGN, other) == [
        "variant baseline: MODEL.BFP.ENABLED False there, none here",
        "variants: baseline, all there, baseline, loss here",
        "seeds: 1, 2 there, 1 here",
        "overrides: SOLVER.MAX_ITER 10 there, none here",
    ]


@pytest.mark.parametrize("name", ["base", "baseline", "train", "test", "group"])
def test_every_text_counts_as_a_difference(name):
    values = {"baseline": "all", "group": "x"}
    old = changed(folds=2, test="") if name == "group" else DESIGN
    new = dataclasses.replace(old, **{name: values.get(name, "other")})
    assert [d.partition(":")[0] for d in differences(old, new)] == [name]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"variants": ()}, "at least one variant, got none"),
        ({"variants": variants("baseline", "baseline")}, "must differ.*'baseline' and 'baseline'"),
        ({"variants": variants("baseline", "Baseline")}, "must differ.*'baseline' and 'Baseline'"),
        ({"baseline": "base"}, r"--baseline must be the name of a variant \(baseline, all\)"),
        ({"seeds": ()}, "at least one seed"),
        ({"seeds": (1, 2, 1)}, "got 1 twice"),
        ({"seeds": (1, -1)}, "each must be from 0 to 2147483647, got -1"),
        ({"seeds": (2**31,)}, "each must be from 0 to"),
        ({"base": ""}, "--base must be a config file"),
        ({"train": ""}, "--train must be a data set"),
        ({"test": ""}, "--test must be a data set"),
        ({"folds": 2}, "--folds and --test cannot be combined"),
        ({"folds": 1, "test": ""}, "--folds must be from 2 to 100"),
        ({"folds": -2, "test": ""}, "--folds must be from 2 to 100"),
        ({"group": "x"}, "--group must come with --folds"),
        ({"overrides": ("A",)}, "KEY VALUE pairs, got 'A'"),
        ({"variants": (Variant("baseline", ("A", "1", "B")),)}, "variant baseline.*got 'B'"),
        ({"seeds": tuple(range(6000))}, "at most 10000 runs"),
    ],
)
def test_refuses_designs_that_cannot_be_run(values, message):
    with pytest.raises(UserError, match=message):
        changed(**values)


@pytest.mark.parametrize(
    "key", ["SEED", "DATASETS.TRAIN", "DATASETS.TEST", "OUTPUT_DIR", "OUTPUT_BRIEF"]
)
def test_refuses_keys_that_the_runner_sets(key):
    with pytest.raises(UserError, match=f"{key} is set by --"):
        changed(overrides=(key, "1"))
    with pytest.raises(UserError, match=f"variant baseline: {key} is set by --"):
        changed(variants=(Variant("baseline", (key, "1")),))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a b", "-a", ".a", "a.", "a\n", "a" * 101, "a:b", "a\\b", "_a"]
)
def test_refuses_names_that_are_no_safe_folder_names(name):
    with pytest.raises(UserError, match="the name of a folder"):
        changed(variants=variants("baseline", name))


@pytest.mark.parametrize("name", ["a", "bfp+loss", "alpha=0.5", "v1.2_x-y", "größer", "a" * 100])
def test_accepts_other_names(name):
    assert changed(variants=variants("baseline", name)).variant(name).name == name


@pytest.mark.parametrize(
    ("value", "seeds"),
    [
        ("3", (1, 2, 3)),
        (3, (1, 2, 3)),
        ("1,5,9", (1, 5, 9)),
        (" 5 , 0 ", (5, 0)),
        ("7,", (7,)),
        ([4], (4,)),
    ],
)
def test_seeds_are_a_number_or_a_list(value, seeds):
    assert parse_seeds(value) == seeds


@pytest.mark.parametrize("value", ["", ",", "0", "-1", "a", "1.5", 0, True, None, [1.0], 10**9])
def test_refuses_other_seeds(value):
    with pytest.raises(UserError, match="--seeds must"):
        parse_seeds(value)


@pytest.mark.parametrize(("value", "message"), [("1,1", "1 twice"), ("1,-2", "got -2")])
def test_refuses_lists_of_bad_seeds(value, message):
    with pytest.raises(UserError, match=message):
        parse_seeds(value)


@pytest.mark.parametrize(
    "value",
    [
        ["MODEL.BFP.ENABLED", False, "SOLVER.STEPS", [1, 2]],
        {"MODEL.BFP.ENABLED": False, "SOLVER.STEPS": [1, 2]},
        {"MODEL": {"BFP": {"ENABLED": False}}, "SOLVER": {"STEPS": [1, 2]}},
    ],
    ids=["list", "mapping", "nested"],
)
def test_overrides_of_a_file_have_three_forms(value):
    expected = ("MODEL.BFP.ENABLED", "False", "SOLVER.STEPS", "[1, 2]")
    assert overrides_from_file(value, "v") == expected


def test_a_variant_may_have_no_overrides():
    assert overrides_from_file(None, "v") == overrides_from_file([], "v") == ()


@pytest.mark.parametrize("value", ["A 1", 1, {1: 2}])
def test_refuses_other_overrides(value):
    with pytest.raises(UserError, match="variant 'v'"):
        overrides_from_file(value, "v")
