"""What runs on the simulated accelerator, beside what Detectron2 does for the same images."""

from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import torch
from detectron2.engine import DefaultPredictor
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.modeling.sampling import subsample_labels

import libra_d2
from libra_d2.data import register_coco
from libra_d2.data.images.sources import ImageItem
from libra_d2.evaluation.validation_loss import validation_losses
from libra_d2.inference.pipeline import DetectionPipeline
from libra_d2.inference.trained_detector import TrainedDetector
from libra_d2.modeling import build_tta, sample_proposals
from libra_d2.modeling.soft_nms import batched_soft_nms

from ..engine.toy import Toy, batches, make_loop, run, weights
from ..support.coco_files import write_dataset
from ..support.detector_runs import write_run
from ..support.models import batch
from ..support.simulated_accelerator import NAME, Wait, recorded_waits
from .detectors import FAMILY, build, infer, our_config, our_loop, run_steps, their_config
from .detectors import their_loop as build_their_loop

# What a run of this package may have switched on. Every other step measures the balance.
EVERYTHING = (
    "SOLVER.EMA_DECAY 0.999 SOLVER.CLIP_GRADIENTS.ENABLED True SOLVER.CLIP_GRADIENTS.CLIP_TYPE "
    "global_norm SOLVER.NON_FINITE_SKIPS 5 BALANCE.PERIOD 2"
).split()
NAMES = ("disk", "square", "triangle")


@dataclass
class Counted:
    """The waits of a piece of work for `images` images, and of Detectron2's, if it has the like."""

    images: int
    ours: List[Wait]
    theirs: Optional[List[Wait]] = None
    facts: Dict[str, Any] = field(default_factory=dict)


def waits_of(action: Callable[[], Any]) -> List[Wait]:
    with recorded_waits() as waits:
        action()
    return waits


def outside_of_models(waits: List[Wait]) -> List[Wait]:
    """Return the waits that neither a forward nor a backward pass caused."""
    return [w for w in waits if w.lines and not any("/modeling/" in line for line in w.lines)]


def training(member: str, folder: Path) -> Counted:
    cfg = our_config(member, *EVERYTHING, "OUTPUT_DIR", str(folder))
    (_, measured, ours), storage = run_steps(*our_loop(cfg), 3)
    (_, theirs), _ = run_steps(*build_their_loop(their_config(member)), 2)
    facts = {
        "hooks and loop": len(outside_of_models(ours)),
        "a step that measures": len(measured),
        "measured": sorted(k for k in storage.latest() if k.startswith("balance/")),
    }
    return Counted(2, ours, theirs, facts)


def accumulation(folder: Path) -> Counted:
    """Compare a step of two micro-batches with two steps of one image."""
    options = ("SOLVER.ACCUMULATION_STEPS", "2", "OUTPUT_DIR", str(folder))
    (_, ours), _ = run_steps(*our_loop(our_config("Faster R-CNN", *EVERYTHING[:-2], *options)), 2)
    loop = build_their_loop(their_config("Faster R-CNN"), images_per_batch=1)
    (_, _, first, second), _ = run_steps(*loop, 4)
    return Counted(2, ours, first + second)


@lru_cache
def their_model(member: str) -> torch.nn.Module:
    return build(their_config(member)).eval()


def inference(member: str, folder: Path, nms: str = "hard") -> Counted:
    model, upstream = build(our_config(member, "TEST.NMS.TYPE", nms)), their_model(member)
    found: List[Any] = []
    ours = waits_of(lambda: found.extend(infer(model, batch())))
    theirs = waits_of(lambda: infer(upstream, batch()))
    return Counted(2, ours, theirs, {"detections": [len(x["instances"]) for x in found]})


def pipeline(folder: Path) -> Counted:
    """Compare batches with the single images of Detectron2's predictor."""
    cfg = our_config("Faster R-CNN")
    detector = TrainedDetector(cfg, build(cfg).eval(), NAMES, (1, 2, 3))
    images = [x["image"].permute(1, 2, 0).numpy() for x in batch()]
    items = [ImageItem(str(i), str(i), image=image) for i, image in enumerate(images)]
    found: List[Any] = []
    run_all = DetectionPipeline(detector, batch_size=2, workers=1)
    ours = waits_of(lambda: found.extend(run_all([items])))

    upstream = their_model("Faster R-CNN")

    def one_by_one():
        for x in batch():
            infer(upstream, [x])[0]["instances"].to("cpu")

    detections = [len(x.detections) for window in found for x in window]
    return Counted(2, ours, waits_of(one_by_one), {"detections": detections})


def predictor(folder: Path) -> Counted:
    ours = libra_d2.Predictor(str(write_run(folder, names=NAMES)), device=NAME)
    theirs = DefaultPredictor(ours.cfg)
    images = [x["image"].permute(1, 2, 0).numpy() for x in batch()]
    found: List[Any] = []
    waits = waits_of(lambda: found.extend(ours(images)))
    facts = {
        "detections": [len(x) for x in found],
        "devices": sorted({str(x.scores.device) for x in found}),
        "names": all(len(x.class_names) == len(x) for x in found),
    }
    return Counted(2, waits, waits_of(lambda: [theirs(image) for image in images]), facts)


def tta(member: str, folder: Path) -> Counted:
    image = {k: v for k, v in batch()[0].items() if k in ("image", "height", "width")}
    cfg = our_config(member)
    detector = build_tta(cfg, build(cfg).eval())
    found: List[Any] = []
    ours = waits_of(lambda: found.extend(infer(detector, [image])))
    theirs = None
    if member != "RetinaNet":  # which Detectron2 cannot augment
        upstream = GeneralizedRCNNWithTTA(their_config(member), their_model(member))
        theirs = waits_of(lambda: infer(upstream, [image]))
    return Counted(1, ours, theirs, {"detections": [len(x["instances"]) for x in found]})


def validation_loss(member: str, folder: Path) -> Counted:
    cfg = our_config(member)
    cfg.DATASETS.TEST = (register_coco(*write_dataset(folder / "val", num_images=2)),)
    losses: Dict[str, float] = {}
    model = build(cfg)
    ours = waits_of(lambda: losses.update(validation_losses(cfg, model)))
    facts = {"reads": len(outside_of_models(ours)), "losses": sorted(losses)}
    return Counted(2, ours, facts=facts)


def sampling(folder: Path) -> Counted:
    """Compare all ways to sample the proposals of an image with Detectron2's random sampling."""
    generator = torch.Generator().manual_seed(0)
    ious = torch.rand(2000, generator=generator)
    inputs = [ious, torch.randint(0, 10, (2000,), generator=generator), (ious >= 0.5).long()]
    on_device = [x.to(torch.device(NAME, 0)) for x in inputs]
    settings: List[Dict[str, Any]] = [
        {},
        {"bin_range": "mmdet"},
        {"floor_thresh": 0.05, "floor_fraction": 0.2},
        {"positives": "random", "negatives": "random"},
    ]

    def sample(inputs: List[torch.Tensor]) -> List[torch.Tensor]:
        torch.manual_seed(1)
        return [torch.cat(sample_proposals(*inputs, 512, 0.25, **x)) for x in settings]

    found: List[torch.Tensor] = []
    ours = waits_of(lambda: found.extend(sample(on_device)))
    theirs = waits_of(lambda: [subsample_labels(on_device[2], 512, 0.25, 0) for _ in settings])
    same = all(torch.equal(x.cpu(), y) for x, y in zip(found, sample(inputs)))
    return Counted(len(settings), ours, theirs, {"same as on the CPU": same})


def soft_nms(folder: Path) -> Counted:
    """Decay 150 boxes of each of four classes, in 150 steps."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(600, 2, generator=generator) * 100
    boxes = torch.cat([corners, corners + 5 + torch.rand(600, 2, generator=generator) * 20], 1)
    inputs = [boxes, torch.rand(600, generator=generator), torch.arange(600) % 4]
    on_device = [x.to(torch.device(NAME, 0)) for x in inputs]
    found: List[torch.Tensor] = []
    ours = waits_of(lambda: found.extend(batched_soft_nms(*on_device)))
    same = all(torch.equal(x.cpu(), y) for x, y in zip(found, batched_soft_nms(*inputs)))
    return Counted(1, ours, facts={"same as on the CPU": same, "steps": 150})


def non_finite(folder: Path) -> Counted:
    """A step whose loss is NaN is recorded and skipped, and the next one is taken."""
    loop = make_loop(
        batches(2, names=["bad", ""]), folder, model=Toy().to(torch.device(NAME, 0)), max_skips=1
    )
    before = weights(loop.model).cpu()
    run(loop, 1)
    unchanged = torch.equal(weights(loop.model).cpu(), before)
    run(loop, 1, start=1)
    changed = not torch.equal(weights(loop.model).cpu(), before)
    files = [p.name for p in (folder / "non_finite").iterdir()]
    facts = {"unchanged": unchanged, "changed": changed, "files": files}
    return Counted(4, [], facts=facts)


WORK: Dict[str, Callable[[Path], Counted]] = {
    **{f"training step, {m}": partial(training, m) for m in FAMILY},
    "training step, two micro-batches": accumulation,
    **{f"inference, {m}": partial(inference, m) for m in FAMILY},
    **{
        f"inference with Soft-NMS, {m}": partial(inference, m, nms="linear")
        for m in ("Faster R-CNN", "Cascade R-CNN", "RetinaNet")
    },
    "sampling of 2000 proposals": sampling,
    "Soft-NMS of 600 boxes": soft_nms,
    "batched pipeline": pipeline,
    "Predictor": predictor,
    **{f"test-time augmentation, {m}": partial(tta, m) for m in ("Mask R-CNN", "RetinaNet")},
    **{f"validation loss, {m}": partial(validation_loss, m) for m in ("Faster R-CNN", "RetinaNet")},
    "non-finite loss": non_finite,
}
