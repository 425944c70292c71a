"""Two processes on half of the batch each do what one process does on all of it."""

import copy
import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

from libra_d2.engine import load_cfg

# Every anchor and proposal is taken: which ones a process draws then does not depend on how
# many draws were made before. Losses are means over equal numbers of samples in each half.
OPTIONS = (
    "MODEL.DEVICE cpu MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 "
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE 100000 MODEL.RPN.SAMPLER.NEG_POS_UB -1.0 "
    "MODEL.RPN.POSITIVE_FRACTION 1.0 MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 100000 "
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN 40 MODEL.RPN.POST_NMS_TOPK_TRAIN 40 "
    "MODEL.RPN.NMS_THRESH 1.0"
).split()


def model_and_batch():
    torch.manual_seed(0)
    model = build_model(load_cfg("configs/libra_mobilenet_v2.yaml", OPTIONS)).train()
    batch = []
    for i in range(4):
        target = Instances((64, 96))
        corner = torch.tensor([[10.0, 5.0], [40.0 + i, 20.0]])
        target.gt_boxes = Boxes(torch.cat([corner, corner + 25 + 3 * i], dim=1))
        target.gt_classes = torch.tensor([i % 3, 4])
        batch.append({"image": torch.randint(0, 256, (3, 64, 96)).float(), "instances": target})
    return model, batch


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
