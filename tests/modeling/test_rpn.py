import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import build_proposal_generator

from libra_d2.engine import load_cfg

SHAPES = {f"p{i}": ShapeSpec(channels=4, stride=2**i) for i in range(2, 7)}


def rpn(*opts, name="LibraRPN"):
    cfg = load_cfg("configs/libra_r50.yaml", ["MODEL.PROPOSAL_GENERATOR.NAME", name, *opts])
    return build_proposal_generator(cfg, SHAPES)


def labels(num_pos, num_neg=5000):
    label = torch.full((num_pos + num_neg + 100,), -1, dtype=torch.int8)
    label[:num_pos] = 1
    label[num_pos : num_pos + num_neg] = 0
    return label[torch.randperm(len(label))]


def counts(generator, num_pos, **kwargs):
    out = generator._subsample_labels(labels(num_pos, **kwargs))
    return (out == 1).sum().item(), (out == 0).sum().item()


@pytest.mark.parametrize(
    "num_pos,expected", [(200, (128, 128)), (20, (20, 100)), (0, (0, 5)), (60, (60, 196))]
)
def test_at_most_five_negatives_for_each_positive(num_pos, expected):
    """256 anchors, half of them positive at most; the config's NEG_POS_UB is 5."""
    assert counts(rpn(), num_pos) == expected


def test_separate_budgets():
    """MindSpore's: 128 positives and 256 negatives, whatever the other number is."""
    generator = rpn("MODEL.RPN.SAMPLER.NUM_NEGATIVES", "256")
    assert counts(generator, 200) == (128, 256)
    assert counts(generator, 60) == (60, 256)
    assert counts(generator, 20) == (20, 100)
    assert counts(generator, 60, num_neg=30) == (60, 30)


def test_bad_setting_is_refused_when_the_model_is_built():
    with pytest.raises(ValueError, match="neg_pos_ub must be -1 or >= 0, got -2"):
        rpn("MODEL.RPN.SAMPLER.NEG_POS_UB", "-2.0")


def test_without_bound_it_is_upstreams():
    results = []
    for name in ("RPN", "LibraRPN"):
        generator = rpn("MODEL.RPN.SAMPLER.NEG_POS_UB", "-1.0", name=name)
        torch.manual_seed(3)
        label = labels(40)
        results.append(generator._subsample_labels(label))
    assert torch.equal(*results)
