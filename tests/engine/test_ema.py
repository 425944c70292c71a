import copy

import pytest
import torch

from libra_d2.engine.ema import EMA
from libra_d2.errors import UserError

from .toy import Toy, batches, make_loop, run, weights


def loop_and_ema(data, model=None, **kwargs):
    model = model or Toy()
    loop = make_loop(data, model=model, **kwargs)
    return loop, EMA(model, loop.optimizer, decay=0.9, warmup=False)


def average(ema, model):
    with ema.averaged():
        return weights(model)


def test_it_is_the_moving_average_of_the_weights_after_each_step():
    loop, ema = loop_and_ema(batches(5))
    expected = weights(loop.model)
    for i in range(5):
        run(loop, 1, start=i)
        expected = 0.9 * expected + 0.1 * weights(loop.model)
    assert torch.allclose(average(ema, loop.model), expected, atol=1e-6)


def test_warm_up_forgets_the_first_weights():
    model = Toy()
    loop = make_loop(batches(1), model=model)
    ema = EMA(model, loop.optimizer, decay=0.999)
    first = weights(model)
    run(loop, 1)
    expected = 0.1 * first + 0.9 * weights(model)  # (1 + 0) / (10 + 0)
    assert torch.allclose(average(ema, model), expected, atol=1e-6)


def test_raw_weights_come_back_bit_by_bit_also_after_an_error():
    loop, ema = loop_and_ema(batches(3))
    run(loop, 3)
    raw = weights(loop.model)
    with pytest.raises(ZeroDivisionError), ema.averaged():
        assert not torch.equal(weights(loop.model), raw)
        with ema.averaged():  # as when a checkpoint is written during an evaluation
            pass
        assert not torch.equal(weights(loop.model), raw)
        _ = 1 / 0
    assert torch.equal(weights(loop.model), raw)


def test_weights_that_are_loaded_before_training_are_its_start():
    loop, ema = loop_and_ema(batches(1))
    with torch.no_grad():
        loop.model.fc.weight.fill_(5.0)
    ema.before_train()
    assert torch.equal(average(ema, loop.model), weights(loop.model))


def test_statistics_of_batch_norm_are_averaged_and_frozen_weights_are_left_alone():
    model = Toy(batch_norm=True)
    model.fc.bias.requires_grad = False
    loop, ema = loop_and_ema(batches(1), model=model)
    before = model.norm.running_mean.clone()
    bias = model.fc.bias.data_ptr()
    run(loop, 1)
    after = model.norm.running_mean.clone()
    with ema.averaged():
        assert torch.allclose(model.norm.running_mean, 0.9 * before + 0.1 * after)
        assert model.fc.bias.data_ptr() == bias
    assert not torch.equal(before, after)


def test_a_skipped_step_is_not_averaged(tmp_path):
    loop, ema = loop_and_ema(batches(2, names=["", "bad"]), output_dir=tmp_path, max_skips=2)
    run(loop, 1)
    before = average(ema, loop.model)
    run(loop, 1, start=1)
    assert ema.updates == 1
    assert torch.equal(average(ema, loop.model), before)


@pytest.mark.parametrize("with_average", [True, False])
def test_a_resumed_run_goes_on_bit_by_bit(with_average):
    """
    The result is the same whether "model" in the checkpoint is the average or the raw weights.
    """
    data = batches(6)
    whole, of_whole = loop_and_ema(data)
    run(whole, 6)

    first, of_first = loop_and_ema(data)
    run(first, 3)
    if with_average:
        with of_first.averaged():
            model, state = map(copy.deepcopy, (first.model.state_dict(), of_first.state_dict()))
    else:
        model, state = map(copy.deepcopy, (first.model.state_dict(), of_first.state_dict()))
    second, of_second = loop_and_ema(data[3:])
    second.model.load_state_dict(model)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    of_second.load_state_dict(state)
    of_second.before_train()
    run(second, 3, start=3)
    assert torch.equal(weights(second.model), weights(whole.model))
    assert torch.equal(average(of_second, second.model), average(of_whole, whole.model))


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_decay_that_averages_nothing_is_refused(decay):
    model = Toy()
    with pytest.raises(
        UserError, match=rf"SOLVER.EMA_DECAY must be above 0 and below 1, got {decay}"
    ):
        EMA(model, torch.optim.SGD(model.parameters(), lr=1.0), decay=decay)


@pytest.mark.gpu
def test_an_update_does_not_wait_for_the_device():
    model = Toy().cuda()
    ema = EMA(model, torch.optim.SGD(model.parameters(), lr=1.0), decay=0.9)
    torch.cuda.set_sync_debug_mode("error")
    try:
        ema.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
