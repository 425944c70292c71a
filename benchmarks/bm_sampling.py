"""Time to sample from 2000 proposals, next to Detectron2's and mmdetection's samplers."""

import torch
from common import parser, peer, table, time_all, title
from detectron2.modeling.sampling import subsample_labels

from libra_d2.modeling import sample_proposals


def scene(num_objects, device, num_proposals=2000):
    """
    Return proposals like those of training: the objects come first, with IoU 1; a fifth is
    foreground; a quarter touches no object.
    """
    g = torch.Generator().manual_seed(num_objects)
    ious = torch.rand(num_proposals, generator=g) / 2
    ious[:400] += 0.5
    ious[400:900] = 0
    ious[:num_objects] = 1
    matched_idxs = torch.randint(0, num_objects, (num_proposals,), generator=g)
    matched_idxs[:num_objects] = torch.arange(num_objects)
    labels = (ious >= 0.5).long()
    return ious.to(device), matched_idxs.to(device), labels.to(device)


def mmdet_sampler(ious, matched_idxs, labels, num_objects):
    positive = peer("mmdet.models.task_modules.samplers", "InstanceBalancedPosSampler")
    if positive is None:
        return None
    negative = peer("mmdet.models.task_modules.samplers", "IoUBalancedNegSampler")
    assign_result = peer("mmdet.models.task_modules.assigners", "AssignResult")
    settings = {"num": 512, "pos_fraction": 0.25, "neg_pos_ub": -1, "add_gt_as_proposals": False}
    positive, negative = positive(**settings), negative(**settings, floor_thr=-1, num_bins=3)
    assigned = assign_result(
        num_objects, torch.where(labels == 1, matched_idxs + 1, 0), ious, labels
    )

    def draw():
        fg_idxs = positive._sample_pos(assigned, 128)
        return fg_idxs, negative._sample_neg(assigned, 512 - len(fg_idxs))

    return draw


def main():
    args = parser(__doc__).parse_args()
    torch.set_num_threads(1)  # for 2000 numbers, a second thread only adds noise
    for num_objects in (10, 100):
        inputs = scene(num_objects, args.device)
        ours = lambda **kw: lambda: sample_proposals(*inputs, 512, 0.25, **kw)
        alternatives = {
            "libra_d2": ours(),
            "libra_d2, mmdet's bins": ours(bin_range="mmdet"),
            "Detectron2, random": lambda: subsample_labels(inputs[2], 512, 0.25, 0),
        }
        mmdet = mmdet_sampler(*inputs, num_objects)
        if mmdet is not None:
            alternatives["mmdetection, balanced"] = mmdet
        title(f"Sampling 512 of 2000 proposals, {num_objects} objects", args.device)
        print(table(time_all(alternatives, args.device, args.rounds, seconds=2), "libra_d2"))


if __name__ == "__main__":
    main()
