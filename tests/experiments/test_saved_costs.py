"""The costs of the variants of an experiment are measured once."""

import json

import pytest

from libra_d2.errors import UserError
from libra_d2.experiments import saved_costs
from libra_d2.experiments.design import Design, Variant
from libra_d2.experiments.results import Cost
from libra_d2.experiments.saved_costs import COSTS, measure_missing_costs, read_costs

COST = Cost(1000, 2.5, 0.25, None, 30.0)


@pytest.fixture
def design(tmp_path):
    variants = (Variant("a", ()), Variant("b", ("MODEL.BFP.ENABLED", "False")))
    return Design(
        base="base.yaml",
        variants=variants,
        baseline="a",
        seeds=(1,),
        train="coco:train",
        test="coco:test",
        folds=0,
        group="",
        plan=False,
        output=str(tmp_path),
        overrides=(),
    )


@pytest.fixture
def measured(monkeypatch):
    """The variants that were measured, in place of measuring them."""
    names = []

    def measure_costs(cfgs):
        names.append(list(cfgs))
        return dict.fromkeys(cfgs, COST)

    monkeypatch.setattr(saved_costs, "measure_costs", measure_costs)
    return names


def test_costs_are_measured_once(design, measured):
    assert read_costs(design) == {}
    for _ in range(2):
        measure_missing_costs(design, {"a": None, "b": None})
        assert read_costs(design) == {"a": COST, "b": COST}
    assert measured == [["a", "b"]]


@pytest.mark.parametrize("content", ["", "[]", '{"variants": {"a": 1}}', '{"variants": {}}'])
def test_damaged_costs_are_measured_again(design, measured, tmp_path, content):
    (tmp_path / COSTS).write_text(content)
    assert read_costs(design) == {}
    measure_missing_costs(design, {"a": None})
    assert measured == [["a"]] and list(json.loads((tmp_path / COSTS).read_text())) == ["variants"]


def test_costs_that_cannot_be_measured_are_left_out(design, monkeypatch, capsys, tmp_path):
    def measure_costs(cfgs):
        raise UserError("the memory does not suffice")

    monkeypatch.setattr(saved_costs, "measure_costs", measure_costs)
    measure_missing_costs(design, {"a": None})
    assert capsys.readouterr().err == (
        "the costs of the variants cannot be measured: the memory does not suffice\n"
    )
    assert not (tmp_path / COSTS).exists() and read_costs(design) == {}
