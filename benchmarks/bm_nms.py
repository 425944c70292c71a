"""Time of Soft-NMS on the candidates of one image, next to torchvision's hard NMS."""

import torch
from common import parser, table, time_all, title
from detectron2.layers import batched_nms

from libra_d2.modeling import batched_soft_nms


def main():
    args = parser(__doc__).parse_args()
    torch.manual_seed(0)
    for num_boxes, num_classes in ((1000, 5), (1000, 80), (20_000, 80)):
        xy = torch.rand(num_boxes, 2) * 600
        boxes = torch.cat([xy, xy + 10 + torch.rand(num_boxes, 2) * 100], dim=1).to(args.device)
        scores = torch.rand(num_boxes, device=args.device)
        classes = torch.randint(num_classes, (num_boxes,), device=args.device)
        soft = lambda method: (
            lambda: batched_soft_nms(boxes, scores, classes, method, iou_thresh=0.5, topk=100)
        )
        alternatives = {
            "libra_d2, linear": soft("linear"),
            "libra_d2, gaussian": soft("gaussian"),
            "hard (torchvision)": lambda: batched_nms(boxes, scores, classes, 0.5)[:100],
        }
        title(f"The best 100 of {num_boxes} boxes in {num_classes} classes", args.device)
        print(table(time_all(alternatives, args.device, args.rounds, 2), "libra_d2, linear"))


if __name__ == "__main__":
    main()
