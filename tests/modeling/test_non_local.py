import subprocess
import sys
import warnings

import pytest
import torch

from libra_d2.modeling import NonLocal2d
from libra_d2.modeling.non_local import MODES

from ..support.project import Golden, assert_close

GOLDEN = Golden("components")


def random_block(channels=8, **kwargs):
    block = NonLocal2d(channels, **kwargs)
    for p in block.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return block


def with_matrix(block, x):
    """The definition, with the matrix of all pairs."""
    n, _, h, w = x.shape
    g = block.g(x).flatten(2).transpose(1, 2)
    if block.mode == "gaussian":
        theta = phi = x.flatten(2).transpose(1, 2)
    else:
        theta, phi = (f(x).flatten(2).transpose(1, 2) for f in (block.theta, block.phi))
    if block.mode == "concatenation":
        pairs = torch.cat(
            [
                theta[:, :, None].expand(-1, -1, h * w, -1),
                phi[:, None].expand(-1, h * w, -1, -1),
            ],
            dim=-1,
        )
        weight = torch.relu(pairs @ block.concat_project.weight.flatten()) / (h * w)
    else:
        weight = theta @ phi.transpose(1, 2)
        if block.mode == "dot_product":
            weight = weight / (h * w)
        else:
            if block.use_scale and block.mode == "embedded_gaussian":
                weight = weight / theta.shape[-1] ** 0.5
            weight = weight.softmax(-1)
    y = (weight @ g).transpose(1, 2).reshape(n, -1, h, w)
    return x + block.conv_out(y)


@pytest.mark.parametrize("case", GOLDEN.of_kind("non_local"))
def test_equals_reference(case):
    # 1e-5: sums of float32 in another order.
    block = NonLocal2d(16, case["reduction"], case["use_scale"], case["mode"])
    block.load_state_dict(GOLDEN.parameters(case["name"]))
    assert_close(
        block(GOLDEN.array(case["name"], "in")).detach(), GOLDEN.array(case["name"], "out"), 1e-5
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 9)])
def test_equals_definition_with_gradients(mode, size):
    block = random_block(reduction=2, mode=mode).double()
    x = torch.randn(2, 8, *size, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn_like(x)
    inputs = [x, *block.parameters()]
    expected = with_matrix(block, x)
    expected_grads = torch.autograd.grad((expected * cotangent).sum(), inputs)
    actual = block(x)
    grads = torch.autograd.grad((actual * cotangent).sum(), inputs)
    assert_close(actual.detach(), expected.detach(), 1e-12)
    for grad, expected_grad in zip(grads, expected_grads):
        assert_close(grad, expected_grad, 1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_starts_as_identity_and_takes_empty_batches(mode):
    block = NonLocal2d(8, mode=mode)
    x = torch.randn(2, 8, 5, 4)
    assert torch.equal(block(x), x)
    assert block(x[:0]).shape == (0, 8, 5, 4)


@pytest.mark.parametrize("mode", ["embedded_gaussian", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_finite_where_products_overflow_float16(mode, dtype):
    block = random_block(channels=64, reduction=1, use_scale=False, mode=mode)
    x = 40 * torch.randn(1, 64, 6, 6)
    assert (x.flatten(2).transpose(1, 2) @ x.flatten(2)).max() > torch.finfo(torch.float16).max
    with torch.autocast("cpu", dtype):
        assert torch.isfinite(block(x)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_close(dtype):
    block = random_block(reduction=1, use_scale=False)
    x = torch.randn(1, 8, 6, 6)
    with torch.autocast("cpu", dtype):
        cast = block(x)
    assert (cast - block(x)).abs().max() < 0.1  # of values around 3: 8 bits of mantissa


@pytest.mark.parametrize("mode", MODES)
def test_scripts(mode):
    block = random_block(mode=mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(block)
    x = torch.randn(2, 8, 5, 6)
    assert_close(scripted(x).detach(), block(x).detach(), 1e-5)


def test_layout_does_not_matter():
    block = random_block()
    x = torch.randn(2, 8, 5, 6)
    y = block(x.contiguous(memory_format=torch.channels_last))
    assert_close(y, block(x), 1e-5)


LARGE_MAP = """
import re, sys, time
import torch
from libra_d2.modeling import NonLocal2d

def peak():  # of this process alone: what getrusage says may be the parent's
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))

torch.manual_seed(0)
block = NonLocal2d(64, reduction=1, mode=sys.argv[1])
torch.nn.init.normal_(block.conv_out.weight)
with torch.no_grad():
    block(torch.randn(1, 64, 8, 8))
    x = torch.randn(1, 64, 192, 192)
    before = peak()
    start = time.perf_counter()
    y = block(x)
    seconds = time.perf_counter() - start
    extra = peak() - before
assert torch.isfinite(y).all()
print(extra, seconds)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("mode", MODES)
def test_no_matrix_of_pairs_on_the_cpu(mode):
    """A 192x192 map has 36864 positions: their matrix alone would take 5.4 GB."""
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LARGE_MAP, mode],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    extra_kib, seconds = (float(v) for v in out.split())
    assert 1e6 < extra_kib * 1024 < 1.5e9
    assert seconds < 60  # 1 to 3 s here


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_no_matrix_of_pairs_on_cuda(mode):
    block = NonLocal2d(64, reduction=1, mode=mode).cuda()
    x = torch.randn(1, 64, 256, 256, device="cuda", requires_grad=True)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    block(x).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 1.5e9


@pytest.mark.parametrize("kwargs", [{"mode": "gauss"}, {"reduction": 0}])
def test_bad_setting_is_named(kwargs):
    (name, value) = next(iter(kwargs.items()))
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        NonLocal2d(8, **kwargs)
