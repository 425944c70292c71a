import math

import pytest
import torch

from libra_d2.modeling import balanced_l1_loss

from ..support.project import Golden, assert_close

GOLDEN = Golden("components")
SETTINGS = [(0.5, 1.5, 1.0), (0.2, 1.0, 1.0), (0.5, 1.5, 0.11), (0.3, 2.0, 2.5)]


def grad_at(error, **kwargs):
    x = torch.tensor(error, dtype=torch.float64, requires_grad=True)
    balanced_l1_loss(x, torch.zeros_like(x), reduction="sum", **kwargs).backward()
    return x.grad


@pytest.mark.parametrize("case", GOLDEN.of_kind("balanced_l1"))
def test_equals_reference(case):
    # 1e-6: float32 rounding of values up to 10. At beta 1 both forms are the published one.
    name = case["name"]
    forms = ["mmdet"] + (["continuous"] if case["beta"] == 1 else [])
    for form in forms:
        x = GOLDEN.array(name, "input").requires_grad_()
        parameters = {k: case[k] for k in ("alpha", "gamma", "beta")}
        loss = balanced_l1_loss(x, torch.zeros_like(x), form=form, **parameters)
        loss.sum().backward()
        assert_close(loss.detach(), GOLDEN.array(name, "loss"), 1e-6)
        assert_close(x.grad, GOLDEN.array(name, "grad"), 1e-4)


@pytest.mark.parametrize("alpha,gamma,beta", SETTINGS)
def test_gradient_is_the_one_of_the_paper(alpha, gamma, beta):
    d = torch.linspace(0.01, 3 * beta, 60, dtype=torch.float64)
    b = math.exp(gamma / alpha) - 1
    expected = torch.where(d < beta, alpha * torch.log(b * d / beta + 1), gamma)
    grad = grad_at(d.tolist(), alpha=alpha, gamma=gamma, beta=beta)
    assert_close(grad, expected, 1e-12)


@pytest.mark.parametrize("alpha,gamma,beta", SETTINGS)
def test_continuous_form_is_smooth_at_beta(alpha, gamma, beta):
    """C1: neither the loss nor its gradient jumps where an inlier becomes an outlier."""
    eps = 1e-9
    around = torch.tensor([beta - eps, beta + eps], dtype=torch.float64)
    parameters = {"alpha": alpha, "gamma": gamma, "beta": beta}
    low, high = balanced_l1_loss(around, torch.zeros(2), **parameters)
    assert abs(high - low) < 1e-7
    low, high = grad_at(around.tolist(), **parameters)
    assert abs(high - low) < 1e-6
    assert grad_at([0.0], **parameters) == 0


def test_published_form_jumps_at_other_betas():
    """Why there are two forms: the figures for beta 0.11, alpha 0.5, gamma 1.5."""
    low, high = grad_at([0.11 - 1e-9, 0.11 + 1e-9], beta=0.11, form="mmdet")
    assert low == pytest.approx(1.70, abs=0.01)
    assert high == pytest.approx(1.50, abs=0.01)
    assert grad_at([1e-12], beta=0.11, form="mmdet") == pytest.approx(4.04, abs=0.01)


@pytest.mark.parametrize("form", ["continuous", "mmdet"])
def test_gradcheck(form):
    # Away from 0 and beta, where a difference quotient would straddle the kink of |x|.
    x = torch.tensor([-2.0, -0.7, -0.05, 0.03, 0.4, 1.9], dtype=torch.float64, requires_grad=True)
    target = torch.zeros_like(x)
    assert torch.autograd.gradcheck(
        lambda x: balanced_l1_loss(x, target, beta=0.5, form=form), (x,)
    )


def test_symmetric_and_closed_form():
    x = torch.tensor([0.0, 1.0, -1.0, 3.0])
    loss = balanced_l1_loss(x, torch.zeros(4))
    b = math.exp(3) - 1
    at_one = 0.5 / b * (b + 1) * math.log(b + 1) - 0.5
    assert loss.tolist() == pytest.approx([0, at_one, at_one, at_one + 1.5 * 2], rel=1e-6)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_empty_input_backpropagates_zero(reduction):
    x = torch.zeros(0, 4, requires_grad=True)
    loss = balanced_l1_loss(x, torch.zeros(0, 4), reduction=reduction).sum()
    loss.backward()
    assert loss == 0 and x.grad.shape == (0, 4)


def test_reductions():
    x, target = torch.randn(5, 4), torch.randn(5, 4)
    each = balanced_l1_loss(x, target)
    assert torch.equal(balanced_l1_loss(x, target, reduction="sum"), each.sum())
    assert torch.equal(balanced_l1_loss(x, target, reduction="mean"), each.mean())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    x = torch.tensor([1e-3, 0.5, 100.0, 60000.0], dtype=dtype)
    loss = balanced_l1_loss(x, torch.zeros_like(x))
    assert loss.dtype == torch.float32
    assert_close(loss, balanced_l1_loss(x.float(), torch.zeros(4)), 0)


@pytest.mark.parametrize(
    "setting",
    [{"beta": 0.0}, {"alpha": -1.0}, {"gamma": 0.0}, {"reduction": "max"}, {"form": "paper"}],
)
def test_bad_setting_is_named(setting):
    (name, value) = next(iter(setting.items()))
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        balanced_l1_loss(torch.zeros(1), torch.zeros(1), **setting)
