import copy
import warnings

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage

from libra_d2.engine.train_loop import LibraTrainLoop

from ..support.distributed_models import model_and_batch
from .toy import Toy, batches, make_loop, run, weights


def test_without_options_it_is_upstreams_loop_bit_by_bit():
    ours = make_loop(batches(10))
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    upstream = SimpleTrainer(model, batches(10), optimizer)
    storages = [run(loop, 10) for loop in (ours, upstream)]
    assert torch.equal(weights(ours.model), weights(model))
    assert not torch.equal(weights(model), weights(Toy()))
    for name in ("loss_a", "loss_b", "total_loss"):
        of_ours, of_upstream = (storage.history(name).values() for storage in storages)
        assert of_ours == of_upstream
    assert ours.state_dict()["optimizer"].keys() == upstream.state_dict()["optimizer"].keys()


@pytest.mark.parametrize("size,parts", [(4, 2), (4, 4), (5, 2), (2, 4)])
def test_parts_of_a_step_add_up_to_it(size, parts):
    """The parts may differ in size, like after the last, smaller batch of a loader."""
    whole, in_parts = (make_loop(batches(5, size), accumulation_steps=n) for n in (1, parts))
    storages = run(whole, 5), run(in_parts, 5)
    # Sums of float32 in another order.
    assert torch.allclose(weights(whole.model), weights(in_parts.model), atol=1e-6)
    losses = [[v for v, _ in s.history("total_loss").values()] for s in storages]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(losses[1]) == 5


def test_parts_of_a_detectors_step_add_up_to_it():
    moved = {}
    for parts in (1, 2):
        model, batch = model_and_batch()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        loop = make_loop([copy.deepcopy(batch)], model=model, optimizer=optimizer)
        loop.accumulation_steps = parts
        run(loop, 1)
        moved[parts] = {k: v - before[k] for k, v in model.state_dict().items()}
    for name, of_whole in moved[1].items():
        # Updates of up to 1e-2, and their sums of float32 in another order.
        assert (of_whole - moved[2][name]).abs().max() <= 1e-6, name
    assert max(m.abs().max() for m in moved[1].values()) > 1e-3


def test_hooks_see_the_whole_gradient_once_a_step():
    seen = []
    loop = make_loop(
        batches(3),
        accumulation_steps=2,
        after_backward=lambda: seen.append(loop.model.fc.weight.grad.clone()),
    )
    run(loop, 3)
    assert len(seen) == 3
    model = Toy()
    sum(model(batches(1)[0]).values()).backward()
    assert torch.allclose(seen[0], model.fc.weight.grad, atol=1e-6)


def test_bfloat16_computes_in_it_and_keeps_float32_weights():
    loop = make_loop(batches(20), amp_dtype=torch.bfloat16)
    run(loop, 20)
    assert loop.model.dtypes == {torch.bfloat16}
    assert weights(loop.model).dtype == torch.float32
    full = make_loop(batches(20))
    run(full, 20)
    assert full.model.dtypes == {torch.float32}
    # bfloat16 has 8 bits: 2**-8 of weights around 1, over 20 steps.
    assert torch.allclose(weights(loop.model), weights(full.model), atol=0.1)


def test_a_detector_trains_in_bfloat16_on_the_cpu():
    losses = {}
    for dtype in (None, torch.bfloat16):
        model, batch = model_and_batch()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        loop = make_loop([batch], model=model, optimizer=optimizer, amp_dtype=dtype)
        losses[dtype] = run(loop, 1).latest()["total_loss"][0]
    assert losses[None] != losses[torch.bfloat16]
    # 8 bits, through some 50 layers.
    assert losses[torch.bfloat16] == pytest.approx(losses[None], rel=0.05)


def test_momentum_and_counters_go_on_after_a_resume():
    data = batches(6)
    whole = make_loop(data)
    run(whole, 6)
    first = make_loop(data)
    run(first, 3)
    first.guard.skipped = 7
    second = make_loop(data[3:], model=copy.deepcopy(first.model))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.guard.skipped == 7
    run(second, 3, start=3)
    assert torch.equal(weights(whole.model), weights(second.model))


def test_a_checkpoint_of_plain_detectron2_is_taken():
    model = Toy()
    upstream = SimpleTrainer(model, batches(1), torch.optim.SGD(model.parameters(), lr=0.5))
    loop = make_loop(batches(1))
    loop.load_state_dict(upstream.state_dict())
    assert loop.optimizer.param_groups[0]["lr"] == 0.5


on_each_device = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
)


@on_each_device
def test_float16_takes_the_steps_of_float32(device):
    scaler = torch.amp.GradScaler(device, init_scale=1024.0)
    half = make_loop(
        batches(20), model=Toy().to(device), amp_dtype=torch.float16, grad_scaler=scaler
    )
    full = make_loop(batches(20), model=Toy().to(device))
    run(half, 20), run(full, 20)
    assert half.model.dtypes == {torch.float16}
    # float16 has 11 bits: 2**-11 of weights around 1, over 20 steps.
    assert torch.allclose(weights(half.model), weights(full.model), atol=0.02)
    assert scaler.get_scale() == 1024.0


@on_each_device
def test_an_overflow_of_scaled_gradients_is_the_scalers_business(device, tmp_path):
    """The step is skipped, the scale is halved, and nothing is reported."""
    scaler = torch.amp.GradScaler(device, init_scale=2.0**40)
    options = {"amp_dtype": torch.float16, "grad_scaler": scaler}
    loop = make_loop(batches(1), tmp_path, model=Toy().to(device), **options)
    before = weights(loop.model)
    run(loop, 1)
    assert torch.equal(weights(loop.model), before)
    assert scaler.get_scale() == 2.0**39
    assert not list(tmp_path.iterdir())


@on_each_device
def test_a_skipped_step_does_not_change_the_scale(device, tmp_path):
    scaler = torch.amp.GradScaler(device, init_scale=1024.0)
    data = batches(3, names=["", "bad"])
    loop = make_loop(data, tmp_path, model=Toy().to(device), grad_scaler=scaler, max_skips=2)
    run(loop, 3)
    assert scaler.get_scale() == 1024.0
    without = make_loop([data[0], data[2]], model=Toy().to(device))
    run(without, 2)
    # Scaling by a power of two loses nothing.
    assert torch.equal(weights(loop.model), weights(without.model))


@on_each_device
def test_hooks_see_gradients_without_the_scale(device):
    seen = []
    for scale in (1.0, 1024.0):
        loop = make_loop(
            batches(1),
            model=Toy().to(device),
            grad_scaler=torch.amp.GradScaler(device, init_scale=scale),
            after_backward=lambda: seen.append(loop.model.fc.weight.grad.clone()),  # noqa: B023
        )
        run(loop, 1)
    assert torch.equal(*seen)


@pytest.mark.gpu
@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_waits_for_the_device_once(parts):
    """
    The only wait is where the losses are copied to the host. The data are on the device already.
    """
    data = [[{**d, "x": d["x"].cuda()} for d in batch] for batch in batches(3)]
    loop = make_loop(data, model=Toy().cuda(), accumulation_steps=parts)
    run(loop, 2)  # what is made at the first steps may wait
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught, EventStorage(2):
            warnings.simplefilter("always")
            loop.iter = 2
            loop.run_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in caught if "synchroniz" in str(w.message)]) == 1


def test_the_loop_is_upstreams_for_who_reads_its_attributes():
    data = batches(2)
    loop = make_loop(data)
    assert isinstance(loop, SimpleTrainer) and isinstance(loop, LibraTrainLoop)
    assert loop.data_loader is data
    assert next(loop._data_loader_iter) is data[0]
    loop.reset_data_loader(lambda: batches(1, size=3))
    assert len(next(loop._data_loader_iter)) == 3
