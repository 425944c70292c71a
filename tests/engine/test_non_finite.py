import json
import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from libra_d2.engine.non_finite import MAX_OVERFLOWS, NonFiniteGuard
from libra_d2.errors import UserError

from ..support.coco_files import write_dataset
from ..support.train_net_runs import SMALL, on_data, train_net
from .toy import Toy, batches, make_loop, run, weights


def written(tmp_path):
    return {p.name: json.loads(p.read_text()) for p in (tmp_path / "non_finite").iterdir()}


def test_the_run_stops_in_the_step_and_says_what_was_in_it(tmp_path):
    loop = make_loop(batches(4, names=["", "", "bad"]), tmp_path, accumulation_steps=2)
    with pytest.raises(UserError) as e:
        run(loop, 4)
    assert loop.iter == 2
    message = str(e.value)
    assert message.startswith("non-finite loss_b (nan) in iteration 2, with 2_2.jpg, bad (rank 0)")
    assert f"{tmp_path}/non_finite/iter_0000002.json" in message and "\n" not in message
    (record,) = written(tmp_path).values()
    (batch,) = record["micro_batches"]  # the first part of the step was fine
    assert batch["images"] == ["2_2.jpg", "bad"] and batch["rank"] == 0
    assert batch["losses"]["loss_b"] == "nan" and isinstance(batch["losses"]["loss_a"], float)
    assert record["iteration"] == 2 and record["learning_rate"] == [0.1]
    assert record["non_finite_gradients"] == ["fc.weight", "fc.bias"]
    assert torch.isfinite(weights(loop.model)).all()


@pytest.mark.parametrize("bad", ["bad", "inf", "broken"])
def test_a_skipped_step_leaves_no_trace(tmp_path, bad, caplog):
    """Weights and momentum are those of a run without this step."""
    loop = make_loop(batches(4, names=["", bad]), tmp_path, max_skips=2)
    storage = run(loop, 4)
    without = make_loop([b for i, b in enumerate(batches(4)) if i != 1])
    run(without, 3)
    assert torch.equal(weights(loop.model), weights(without.model))
    assert [i for _, i in storage.history("total_loss").values()] == [0, 2, 3]
    assert list(written(tmp_path)) == ["iter_0000001.json"]
    assert caplog.text.count("Skipping the step (1 skipped so far)") == 1


def test_too_many_skips_in_a_row_stop_the_run(tmp_path):
    names = ["bad", "bad", "", "bad", "bad", "bad"]
    loop = make_loop(batches(6, names=names), tmp_path, max_skips=2)
    with pytest.raises(UserError, match=r"in iteration 5, .* The 2 steps before it were skipped"):
        run(loop, 6)


def test_a_gradient_alone_is_enough(tmp_path):
    """The derivative of sqrt at 0 is infinite, although the loss is 0."""

    class Root(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch):
            return {"loss": self.weight.sqrt().sum()}

    with pytest.raises(UserError, match=r"non-finite gradients in iteration 0, with 0_0\.jpg"):
        run(make_loop(batches(1), tmp_path, model=Root()), 1)
    (record,) = written(tmp_path).values()
    assert record["gradient_norm"] == "inf" and record["non_finite_gradients"] == ["weight"]


def test_what_a_skip_cannot_save_stops_the_run(tmp_path):
    """If a batch norm has a NaN in its statistics, all later steps would fail, too."""

    class Normed(Toy):
        def forward(self, batch):
            if batch[-1]["file_name"] == "bad":
                batch = [{**d, "x": d["x"] * float("nan")} for d in batch]
            return super().forward(batch)

    model = Normed(batch_norm=True)
    loop = make_loop(batches(1, names=["bad"]), tmp_path, model=model, max_skips=2)
    with pytest.raises(UserError, match="The weights themselves contain infinity or NaN"):
        run(loop, 1)
    (record,) = written(tmp_path).values()
    assert record["non_finite_weights"] == ["norm.running_mean", "norm.running_var"]


def test_an_overflow_is_the_scalers_business_until_no_scale_helps():
    guard = NonFiniteGuard(output_dir="")
    overflow = {"bad_loss": False, "bad_gradient": True, "scaled": True}
    assert all(guard.allows_step(**overflow) for _ in range(MAX_OVERFLOWS))
    assert not guard.allows_step(**overflow)
    assert guard.allows_step(bad_loss=False, bad_gradient=False, scaled=True)
    assert guard.allows_step(**overflow)  # counting starts over
    assert not guard.allows_step(bad_loss=True, bad_gradient=True, scaled=True)
    assert not guard.allows_step(bad_loss=False, bad_gradient=True, scaled=False)


@pytest.mark.parametrize(
    "settings,named",
    [({"max_skips": -1}, r"SKIPS must be at least 0, got -1")],
)
def test_settings_that_mean_nothing_are_refused(settings, named):
    with pytest.raises(UserError, match=named):
        NonFiniteGuard(output_dir="", **settings)


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    # Only the second process meets what is bad.
    names = ["", "bad", "", "broken", "", "inf", "broken"] if rank else []
    data = [batch[2 * rank : 2 * rank + 2] for batch in batches(7, names=names)]
    model = DistributedDataParallel(Toy(), broadcast_buffers=False)
    exchanges = []

    def count(group, bucket):
        exchanges.append(1)
        # Synchronous: a Python callback in a thread of gloo could abort the process at its exit.
        dist.all_reduce(bucket.buffer())
        averaged = torch.futures.Future()
        averaged.set_result(bucket.buffer() / 2)
        return averaged

    model.register_comm_hook(None, count)
    loop = make_loop(data, folder, model=model, accumulation_steps=2, max_skips=1)
    try:
        run(loop, 7)
    except UserError as e:
        result = {"weights": weights(model), "iter": loop.iter, "error": str(e)}
        result["exchanges"] = len(exchanges)
        torch.save(result, f"{folder}/rank{rank}.pth")
    dist.destroy_process_group()


def test_all_processes_skip_and_stop_together(tmp_path):
    """Also, two processes with two micro-batches each compute the steps of one process."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(worker, (port, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{r}.pth", weights_only=True) for r in range(2)]
    assert [r["iter"] for r in ranks] == [6, 6]
    assert [r["exchanges"] for r in ranks] == [7, 7]  # of gradients: one a step
    assert ranks[0]["error"] == ranks[1]["error"]
    assert "in iteration 6, with broken (rank 1)" in ranks[0]["error"]
    assert sorted(written(tmp_path)) == [f"iter_000000{i}.json" for i in (1, 3, 5, 6)]
    assert torch.equal(ranks[0]["weights"], ranks[1]["weights"])
    alone = make_loop([b for i, b in enumerate(batches(7)) if i in (0, 2, 4)])
    run(alone, 3)
    assert torch.allclose(weights(alone.model), ranks[0]["weights"], atol=1e-6)


def test_a_diverging_run_ends_with_one_line(tmp_path):
    run = train_net(
        *on_data(write_dataset(tmp_path)),
        *SMALL,
        *("SOLVER.BASE_LR", "1e12", "SOLVER.WARMUP_ITERS", "0", "SOLVER.MAX_ITER", "20"),
        *("SOLVER.STEPS", "(19,)"),
        *("OUTPUT_DIR", tmp_path / "out"),
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stdout + run.stderr
    line = run.stderr.strip().splitlines()[-1]
    assert line.startswith("error: no") and ".jpg" in line and "SOLVER.BASE_LR" in line
    ((name, record),) = written(tmp_path / "out").items()
    assert name == f"iter_{record['iteration']:07d}.json" and name in line
    assert len(record["micro_batches"][0]["images"]) == 2
    assert record["learning_rate"] == [1e12]
