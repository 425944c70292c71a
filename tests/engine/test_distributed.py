"""Two processes with half of the batch each compute what one process computes with all of it."""

import copy
import json
import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

from ..support.coco_files import write_dataset
from ..support.distributed_models import model_and_batch
from ..support.train_net_runs import SMALL, on_data, train_net


def step(model, batch):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with EventStorage():
        losses = model(copy.deepcopy(batch))
    sum(losses.values()).backward()
    optimizer.step()
    return {k: v.detach() for k, v in losses.items()}


def worker(rank, port, path):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model, batch = model_and_batch()
    # find_unused_parameters stays off: a parameter without a gradient would fail here.
    ddp = DistributedDataParallel(model, broadcast_buffers=False)
    losses = step(ddp, batch[2 * rank : 2 * rank + 2])
    for value in losses.values():
        dist.all_reduce(value)
    if rank == 0:
        torch.save(
            {"losses": {k: v / 2 for k, v in losses.items()}, "model": model.state_dict()}, path
        )
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(worker, (port, str(tmp_path / "two.pth")), nprocs=2)
    two = torch.load(tmp_path / "two.pth", weights_only=True)

    model, batch = model_and_batch()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    losses = step(model, batch)
    for name, value in losses.items():
        # 1e-5 relative: sums of float32 over halves of the batch.
        assert torch.isclose(value, two["losses"][name], rtol=1e-5), name
    moved = 0.0
    for name, value in model.state_dict().items():
        # Updates of up to 1e-2, and their sums of float32 in another order.
        assert (value - two["model"][name]).abs().max() <= 1e-6, name
        moved = max(moved, (value - before[name]).abs().max().item())
    assert moved > 1e-3


def test_two_processes_train_evaluate_and_save_for_one(tmp_path):
    """No image is omitted or evaluated twice, and only one process writes files."""
    files = write_dataset(tmp_path, num_images=5)  # no even number
    out = tmp_path / "out"
    options = [
        *(*on_data(files), *SMALL, "MODEL.DEVICE", "cpu", "TEST.EVAL_PERIOD", "2"),
        *("MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "DATALOADER.NUM_WORKERS", "2"),
    ]
    run = train_net("--num-gpus", 2, "--dist-url", "auto", *options, "OUTPUT_DIR", out)
    assert run.returncode == 0, run.stderr[-2000:]
    assert ", 2 processes" in run.stdout
    written = {p.name for p in out.rglob("*") if p.is_file()}
    assert {"model_final.pth", "last_checkpoint", "metrics.json", "config.yaml"} <= written
    assert {name for name in written if "rank" in name} == {"log.txt.rank1"}
    assert len([name for name in written if name.startswith("events")]) == 1
    state = torch.load(out / "model_final.pth", weights_only=False)
    assert not any(name.startswith("module.") for name in state["model"])

    one = tmp_path / "one"
    weights = ["MODEL.WEIGHTS", out / "model_final.pth", "OUTPUT_DIR", one]
    run = train_net("--eval-only", *options, *weights)
    assert run.returncode == 0, run.stderr[-2000:]
    of_two, of_one = predictions(out), predictions(one)
    assert {p["image_id"] for p in of_one} == {1, 2, 3, 4, 5}
    assert of_two == of_one

    run = train_net("--resume", *options, "OUTPUT_DIR", out, "SOLVER.MAX_ITER", "3")
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Starting training from iteration 2" in run.stdout


def predictions(output_dir):
    (path,) = output_dir.rglob("coco_instances_results.json")
    return sorted(json.loads(path.read_text()), key=lambda p: (p["image_id"], str(p)))
