"""Time and peak memory of the balanced feature pyramid of an image, next to mmdetection's."""

import torch
from common import parser, peak_memory, peer, print_peak_of, table, time_all, title

from libra_d2.modeling import BalancedFeaturePyramid

SIZES = [(200, 336), (100, 168), (50, 84), (25, 42), (13, 21)]  # 800x1344, as padded to 32
OURS, THEIRS = "libra_d2", "mmdetection"


def pyramids(device):
    torch.manual_seed(0)
    ours = BalancedFeaturePyramid(256, 5, 2, "non_local")
    modules = {OURS: ours.to(device)}
    mmdet = peer("mmdet.models.necks", "BFP")
    if mmdet is not None:
        theirs = mmdet(256, 5, refine_level=2, refine_type="non_local")
        state = ours.state_dict()
        theirs.load_state_dict({k: state[k.replace(".conv.", ".")] for k in theirs.state_dict()})
        modules[THEIRS] = theirs.to(device)
    return modules


def maps(device, sizes=SIZES):
    g = torch.Generator().manual_seed(1)
    return [torch.randn(1, 256, *s, generator=g).to(device).requires_grad_() for s in sizes]


def runs(module, features):
    def forward():
        with torch.no_grad():
            return module(features)

    def both():
        sum(o.sum() for o in module(features)).backward()

    return {"forward": forward, "forward and backward": both}


def main():
    p = parser(__doc__)
    p.add_argument("--memory", metavar="CASE", help="print the peak memory of one case, and stop")
    args = p.parse_args()
    modules = pyramids(args.device)
    if args.memory:
        name, _, what = args.memory.partition("/")
        runs(modules[name], maps(args.device, [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]))[what]()
        print_peak_of(runs(modules[name], maps(args.device))[what], args.device)
        return
    features = maps(args.device)
    for what in ("forward", "forward and backward"):
        alternatives = {name: runs(m, features)[what] for name, m in modules.items()}
        times = time_all(alternatives, args.device, args.rounds, seconds=12)
        memory = {n: peak_memory(__file__, f"{n}/{what}", args.device) for n in modules}
        title(f"Balanced feature pyramid, {what}, one image of 800x1333, 256 channels", args.device)
        print(table(times, OURS, memory))


if __name__ == "__main__":
    main()
