"""Time of a whole training step with all components of Libra R-CNN switched on and off."""

import copy

import torch
from common import parser, table, time_all, title
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from libra_d2.engine import load_cfg

OFF = (
    "MODEL.BFP.ENABLED False MODEL.RPN.SAMPLER.NEG_POS_UB -1.0 "
    "MODEL.ROI_HEADS.SAMPLER.POSITIVES random MODEL.ROI_HEADS.SAMPLER.NEGATIVES random "
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE smooth_l1"
).split()


def batch(num_images, height, width, num_objects=12):
    g = torch.Generator().manual_seed(0)
    inputs = []
    for _ in range(num_images):
        size = 20 + torch.rand(num_objects, 2, generator=g) * 100
        corner = torch.rand(num_objects, 2, generator=g) * (torch.tensor([width, height]) - size)
        target = Instances((height, width))
        target.gt_boxes = Boxes(torch.cat([corner, corner + size], 1))
        target.gt_classes = torch.randint(0, 3, (num_objects,), generator=g)
        image = torch.randint(0, 256, (3, height, width), generator=g, dtype=torch.uint8)
        inputs.append({"image": image, "instances": target})
    return inputs


def stepper(config, opts, inputs, device):
    cfg = load_cfg(config, ["MODEL.DEVICE", device, *opts])
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # random weights would diverge; the work is the same

    def step():
        with EventStorage():
            losses = model(copy.deepcopy(inputs))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()

    return step


def main():
    p = parser(__doc__)
    p.add_argument("--config-file", default="configs/libra_mobilenet_v2.yaml")
    p.add_argument("--images", type=int, default=2)
    p.add_argument("--size", type=int, nargs=2, default=(320, 448), metavar=("HEIGHT", "WIDTH"))
    args = p.parse_args()
    inputs = batch(args.images, *args.size)
    alternatives = {
        "Libra on": stepper(args.config_file, [], inputs, args.device),
        "Libra off": stepper(args.config_file, OFF, inputs, args.device),
    }
    height, width = args.size
    title(f"{args.config_file}: a step of {args.images} images of {height}x{width}", args.device)
    print(table(time_all(alternatives, args.device, args.rounds, seconds=15), "Libra on"))


if __name__ == "__main__":
    main()
