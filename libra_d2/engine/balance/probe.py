"""Record the intermediate results of a training step of a detector without changing them."""

from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from detectron2.modeling import RetinaNet
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from torch import nn

from ...modeling import BFP
from . import measures as measures


class BalanceProbe:
    """
    Records the arguments and results of the parts of a model between :meth:`attach` and
    :meth:`detach`. The results, gradients and random numbers of the step do not change. The IoUs
    are computed a second time, only in these steps.
    """

    def __init__(self, model: nn.Module, bg_iou_thresh: float, beta: float):
        """
        Args:
            model: a detector of Detectron2 or of this package, not wrapped for several processes.
            bg_iou_thresh: upper end of the IoUs of negatives.
            beta: error in box deltas at which a coordinate begins to be hard.
        """
        self.model = model
        self.bg_iou_thresh = bg_iou_thresh
        self.beta = beta
        self._undo: List[Callable[[], Any]] = []
        self.clear()

    def clear(self) -> None:
        """Free everything that was recorded."""
        self._everything: List[measures.Matching] = []
        self._sampled: List[measures.Matching] = []
        self._errors: List[torch.Tensor] = []
        self._gradients: Dict[int, torch.Tensor] = {}
        self._levels: Optional[Tuple[List[str], List[torch.Tensor], List[torch.Tensor]]] = None
        self.failure: Optional[Exception] = None  # of the probe; it must not end the step

    def attach(self) -> None:
        self.clear()
        heads = getattr(self.model, "roi_heads", None)
        if heads is not None and hasattr(heads, "proposal_matcher"):
            self._watch(heads, "label_and_sample_proposals", self._see_sampling)
        predictor = self._predictor()
        if predictor is not None and hasattr(predictor, "box_reg_loss"):
            self._watch(predictor, "box_reg_loss", self._see_box_loss)
        if isinstance(self.model, RetinaNet):
            self._watch(self.model, "losses", self._see_retinanet_loss)
        backbone = getattr(self.model, "backbone", None)
        if isinstance(backbone, BFP):
            hook = self._guarded(self._see_bfp)
            self._undo.append(backbone.bfp.register_forward_hook(hook).remove)
        elif backbone is not None:
            hook = self._guarded(self._see_backbone)
            self._undo.append(backbone.register_forward_hook(hook).remove)

    def detach(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _predictor(self) -> Optional[nn.Module]:
        predictor = getattr(getattr(self.model, "roi_heads", None), "box_predictor", None)
        # Use the first stage of a cascade, because the others do not sample.
        return predictor[0] if isinstance(predictor, nn.ModuleList) else predictor

    def _watch(self, owner: nn.Module, name: str, see: Callable) -> None:
        """Call `see` with the result and the arguments after each call of a method."""
        method, see = getattr(owner, name), self._guarded(see)

        def watched(*args, **kwargs):
            result = method(*args, **kwargs)
            see(result, *args, **kwargs)
            return result

        own = name in vars(owner)
        setattr(owner, name, watched)
        self._undo.append(lambda: setattr(owner, name, method) if own else delattr(owner, name))

    def _guarded(self, see: Callable) -> Callable:
        @torch.no_grad()
        def guarded(*args, **kwargs) -> None:
            try:
                see(*args, **kwargs)
            except Exception as e:
                self.failure = e

        return guarded

    # Methods that record. Their arguments have the names of Detectron2's methods.

    def _see_sampling(self, sampled, proposals, targets) -> None:
        heads: Any = self.model.roi_heads
        if heads.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        for seen, of_images in ((self._everything, proposals), (self._sampled, sampled)):
            for of_image, target in zip(of_images, targets):
                seen.append(
                    measures.Matching(
                        heads.proposal_matcher, target.gt_boxes, of_image.proposal_boxes
                    )
                )

    def _see_box_loss(self, _, proposal_boxes, gt_boxes, pred_deltas, gt_classes) -> None:
        predictor: Any = self._predictor()
        foreground = (gt_classes >= 0) & (gt_classes < predictor.num_classes)
        rows = torch.nonzero(foreground).squeeze(1)
        dim = proposal_boxes.shape[1]
        num_columns = pred_deltas.shape[1] // dim  # 1 if class-agnostic
        columns = gt_classes[rows] if num_columns > 1 else torch.zeros_like(rows)
        targets = predictor.box2box_transform.get_deltas(proposal_boxes[rows], gt_boxes[rows])

        def of_positives(x):
            return x.reshape(-1, num_columns, dim)[rows, columns]

        self._see_deltas(pred_deltas, of_positives, targets)

    def _see_retinanet_loss(
        self, _, anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes
    ) -> None:
        model: Any = self.model
        labels = torch.stack(gt_labels)
        positive = (labels >= 0) & (labels != model.num_classes)  # (images, anchors)
        sizes = [len(x) for x in anchors]
        gt_boxes = torch.stack(gt_boxes).split(sizes, dim=1)
        for level, mask in enumerate(positive.split(sizes, dim=1)):
            boxes = anchors[level].tensor.expand(len(mask), -1, -1)
            where = mask.nonzero(as_tuple=True)
            targets = model.box2box_transform.get_deltas(boxes[where], gt_boxes[level][where])
            self._see_deltas(pred_anchor_deltas[level], lambda x, where=where: x[where], targets)

    def _see_deltas(
        self, deltas: torch.Tensor, of_positives: Callable, targets: torch.Tensor
    ) -> None:
        if not deltas.requires_grad:
            return
        index = len(self._errors)
        self._errors.append((of_positives(deltas) - targets).abs().float().flatten())

        def see_gradient(gradient):
            self._gradients[index] = of_positives(gradient).abs().float().flatten()

        handle = deltas.register_hook(self._guarded(see_gradient))
        self._undo.append(handle.remove)

    def _see_bfp(self, module, args, refined) -> None:
        backbone: Any = self.model.backbone
        shapes = backbone.output_shape()
        self._levels = (
            sorted(shapes, key=lambda name: shapes[name].stride),
            [measures.level_norm(x) for x in args[0]],
            [measures.level_norm(x) for x in refined],
        )

    def _see_backbone(self, module, args, features) -> None:
        self._levels = (list(features), [measures.level_norm(x) for x in features.values()], [])

    # The result. Only here does the host wait for the device.

    def measurement(self) -> Dict[str, Any]:
        """
        Return the measurements that the step allows, as numbers and lists:

        `negatives` and `positives`, each with `all` and `sampled`: see
        :func:`measures.negatives` and :func:`measures.positives`;
        `gradient`: see :func:`measures.gradient`;
        `levels`: `names`, `before` and `after` (empty without a BFP), root mean squares.
        """
        ret: Dict[str, Any] = {}
        if self._everything:
            ious, per_object = self.negative_ious(), {}
            for name, seen in (("all", self._everything), ("sampled", self._sampled)):
                per_object[name] = [x.per_object for x in seen]
            ret["negatives"] = {
                name: measures.negatives(x, self.bg_iou_thresh) for name, x in ious.items()
            }
            ret["positives"] = {name: measures.positives(x) for name, x in per_object.items()}
        if self._errors and len(self._gradients) == len(self._errors):
            gradients = [self._gradients[i] for i in range(len(self._errors))]
            ret["gradient"] = measures.gradient(
                torch.cat(self._errors), torch.cat(gradients), self.beta
            )
        if self._levels is not None:
            names, before, after = self._levels
            norms = torch.stack(before + after).tolist()
            ret["levels"] = {
                "names": names,
                "before": norms[: len(names)],
                "after": norms[len(names) :],
            }
        return ret

    def negative_ious(self) -> Dict[str, torch.Tensor]:
        """Return the IoUs (B,) of the negatives of all images, `all` and `sampled`."""
        return {
            name: torch.cat([x.negative_ious for x in seen])
            for name, seen in (("all", self._everything), ("sampled", self._sampled))
            if seen
        }
