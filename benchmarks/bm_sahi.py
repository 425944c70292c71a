"""
Time of finding objects in slices of a large image: `slice_size` of Predictor, next to SAHI with the
same detector, slices and batches. Also counts on which detections both agree.
"""

import tempfile

import numpy as np
from bm_inference import random_model
from common import parser, table, time_all, title

from libra_d2 import Predictor
from libra_d2.data.images.reader import read_image
from libra_d2.predictions.detection_set import box_ious

OVERLAP = 0.2


def sahi_predictions(model, image: np.ndarray, size: int, batch_size: int):
    from sahi.predict import get_sliced_prediction

    return get_sliced_prediction(
        image,
        model,
        slice_height=size,
        slice_width=size,
        overlap_height_ratio=OVERLAP,
        overlap_width_ratio=OVERLAP,
        perform_standard_pred=False,
        batch_size=batch_size,
        verbose=0,
    ).object_prediction_list


def common(ours, theirs) -> int:
    """Count pairs of one class with an IoU of 0.9 or more, each detection in one pair at most."""
    boxes = np.array([p.bbox.to_xywh() for p in theirs]).reshape(-1, 4)
    names = np.array([p.category.name for p in theirs])
    xyxy = ours.pred_boxes.tensor.cpu().numpy()
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    iou = box_ious(xywh[:, None], boxes[None], np.zeros((1, 1), bool))
    iou *= np.array(list(ours.class_names))[:, None] == names[None]
    count = 0
    while iou.size and iou.max() >= 0.9:
        i, j = np.unravel_index(iou.argmax(), iou.shape)
        iou[i], iou[:, j] = 0, 0
        count += 1
    return count


def main():
    p = parser(__doc__)
    p.add_argument("--model", help="run folder (default: random weights)")
    p.add_argument("--image", help="large image (default: noise, 1920x1440)")
    p.add_argument("--slice", type=int, default=480)
    p.add_argument("--score-threshold", type=float, default=0.3)
    args = p.parse_args()
    from libra_d2.inference.sahi_model import LibraDetectionModel

    noise = np.random.default_rng(0).integers(0, 256, (1440, 1920, 3), dtype=np.uint8)
    rgb = read_image(args.image, "RGB") if args.image else noise
    rgb = np.ascontiguousarray(rgb)
    bgr = rgb[:, :, ::-1]
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or random_model(folder, args.device)
        options = {"device": args.device, "score_threshold": args.score_threshold}
        whole = Predictor(model, **options)
        slicing = Predictor(model, slice_size=args.slice, slice_overlap=OVERLAP, **options)
        of_sahi = LibraDetectionModel(model=whole)
    ours = slicing(bgr)
    theirs = sahi_predictions(of_sahi, rgb, args.slice, whole.batch_size)
    times = time_all(
        {
            "Predictor(slice_size)": lambda: slicing(bgr),
            "SAHI": lambda: sahi_predictions(of_sahi, rgb, args.slice, whole.batch_size),
        },
        args.device,
        args.rounds,
    )
    size = f"{rgb.shape[1]}x{rgb.shape[0]}"
    title(f"{size} in slices of {args.slice} with an overlap of {OVERLAP}", args.device)
    print(table(times, "Predictor(slice_size)"))
    print(
        f"\n{len(ours)} detections by Predictor, {len(theirs)} by SAHI; {common(ours, theirs)} of "
        "them are the same (class, and IoU of 0.9 or more)"
    )


if __name__ == "__main__":
    main()
