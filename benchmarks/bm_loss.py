"""Time of the Balanced L1 loss, forward and backward, next to smooth L1 and mmdetection's loss."""

import torch
from common import parser, peer, table, time_all, title
from fvcore.nn import smooth_l1_loss

from libra_d2.modeling import balanced_l1_loss


def main():
    args = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    for n in (128 * 2, 128 * 64):
        x = torch.randn(n, 4, device=args.device, requires_grad=True)
        target = torch.randn(n, 4, device=args.device)
        run = lambda f: lambda: f().backward()
        alternatives = {
            "libra_d2": run(lambda: balanced_l1_loss(x, target, reduction="sum")),
            "smooth L1 (fvcore)": run(lambda: smooth_l1_loss(x, target, 1.0, reduction="sum")),
        }
        mmdet = peer("mmdet.models.losses", "BalancedL1Loss")
        if mmdet is not None:
            loss = mmdet(reduction="sum")
            alternatives["mmdetection"] = run(lambda: loss(x, target))
        title(f"Box loss of {n} foreground proposals, forward and backward", args.device)
        print(table(time_all(alternatives, args.device, args.rounds, seconds=2), "libra_d2"))


if __name__ == "__main__":
    main()
