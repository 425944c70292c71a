"""Time of a training step with and without measuring the balance of training."""

import io
import time

from bm_train_step import batch
from common import parser, quartiles, table, time_all, title
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventStorage

from libra_d2.engine import load_cfg
from libra_d2.engine.balance.monitor import BalanceMonitor
from libra_d2.engine.balance.picture import balance_figure


class Loop:
    """A training loop with one hook, which measures in every step or in none."""

    def __init__(self, cfg, model, inputs):
        self.model, self.inputs = model, inputs
        self.optimizer = build_optimizer(cfg, model)
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0  # random weights would diverge; the work is the same
        self.iter = 0
        self.hook = BalanceMonitor(cfg, model)
        self.hook.trainer = self

    def step(self, period):
        self.hook.period = period
        with EventStorage() as self.storage:
            self.hook.before_step()
            losses = self.model([{**x, "instances": x["instances"][:]} for x in self.inputs])
            self.optimizer.zero_grad()
            sum(losses.values()).backward()
            self.optimizer.step()
            self.hook.after_step()


def main():
    p = parser(__doc__)
    p.add_argument("--config-file", default="configs/libra_mobilenet_v2.yaml")
    p.add_argument("--images", type=int, default=2)
    p.add_argument("--size", type=int, nargs=2, default=(320, 448), metavar=("HEIGHT", "WIDTH"))
    args = p.parse_args()
    cfg = load_cfg(args.config_file, ["MODEL.DEVICE", args.device])
    loop = Loop(cfg, build_model(cfg).train(), batch(args.images, *args.size))
    height, width = args.size
    title(f"{args.config_file}: a step of {args.images} images of {height}x{width}", args.device)
    alternatives = {"measured step": lambda: loop.step(1), "other step": lambda: loop.step(0)}
    times = time_all(alternatives, args.device, args.rounds, seconds=20)
    print(table(times, "measured step"))

    period = cfg.BALANCE.PERIOD
    ratios = [
        1 + (measured / other - 1) / period
        for measured, other in zip(times["measured step"], times["other step"])
    ]
    low, median, high = quartiles(ratios)
    print(
        f"\nTime of a run that measures one step in {period}, relative to none: ",
        end="",
    )
    print(f"{median:.4f} ({low:.4f} .. {high:.4f})")
    start = time.perf_counter()
    balance_figure(loop.hook.last, loop.hook.history, "balanced_l1", 1.0).savefig(io.BytesIO())
    print(f"Drawing the picture, once for each evaluation: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
