"""COCO metrics of a detector: Detectron2's evaluator, with all of COCO's numbers."""

import contextlib
import io
import itertools
import json
import logging
import os
from typing import Any, Dict, List, Optional

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm

from ..data.datasets.coco import complete_annotations
from ..predictions.saved_predictions import read_saved, save_record, save_results, why_not_reusable
from ..utils.files import replacing
from ..utils.json_files import is_slow
from ..utils.progress import announced
from .coco_metrics import (
    CocoMetrics,
    chosen_backend,
    coco_metrics,
    largest_number,
)

logger = logging.getLogger(__name__)


class LibraCOCOEvaluator(COCOEvaluator):
    """
    Like Detectron2's `COCOEvaluator`, collect the predictions of a data set and compute COCO's
    metrics. In addition:

    - the results contain AR1, AR10, AR100, ARs, ARm and ARl;
    - images that cannot be read count as images without predictions;
    - annotations that no detection can match, because they have no area or lie outside the image,
      are not ground truth;
    - AP is 0 instead of NaN if nothing was detected.

    The output folder also gets `results.json` (:class:`CocoMetrics` by task) and, if `made_by` is
    set, `record.json` (see :mod:`..predictions.saved_predictions`).
    """

    made_by: Optional[Dict[str, Any]] = None  # what the predictions follow from

    def __init__(
        self,
        dataset_name: str,
        *args,
        backend: str = "pycocotools",
        max_dets_per_image: int = 100,
        **kwargs,
    ):
        """
        Args:
            backend: see :func:`coco_metrics`. Keypoints are evaluated by pycocotools.
            max_dets_per_image: number of detections of an image and class that count, the best
                ones; a negative number counts all.
            Others: see `COCOEvaluator`.
        """
        backend = chosen_backend(backend)
        json_file = MetadataCatalog.get(dataset_name).get("json_file", "")
        with announced(f"Reading {json_file or dataset_name}", at_once=is_slow(json_file)):
            super().__init__(
                dataset_name,
                *args,
                use_fast_impl=False,
                max_dets_per_image=max_dets_per_image if max_dets_per_image >= 0 else None,
                **kwargs,
            )
        self._backend = backend
        self._max_detections = max_dets_per_image
        self.images: List[Dict[str, Any]] = self._coco_api.dataset["images"]
        dataset = self._coco_api.dataset
        if "annotations" not in dataset:
            return  # predictions for an evaluation server
        invalid = set(MetadataCatalog.get(dataset_name).get("invalid_annotation_ids", ()))
        valid = (a for a in dataset["annotations"] if a["id"] not in invalid)
        dataset["annotations"] = complete_annotations(valid, box_areas=False)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            self._coco_api.createIndex()

    def reset(self) -> None:
        super().reset()
        self.num_images = 0
        self.unreadable: List[str] = []

    def process(self, inputs, outputs) -> None:
        pairs = [(i, o) for i, o in zip(inputs, outputs) if not i.get("unreadable")]
        self.num_images += len(inputs)
        self.unreadable += [i.get("file_name", "") for i in inputs if i.get("unreadable")]
        super().process([i for i, _ in pairs], [o for _, o in pairs])

    def evaluate(self, *args, **kwargs):
        self.num_images = sum(comm.all_gather(self.num_images))
        self.unreadable = sorted(itertools.chain(*comm.all_gather(self.unreadable)))
        self._warn_of_unreadable()
        return super().evaluate(*args, **kwargs)

    def evaluate_saved(self) -> Optional[Dict[str, Any]]:
        """
        Evaluate the predictions in the output folder if the network would produce the same ones.
        To find out, `made_by` is compared with the `record.json` of the folder.

        Returns:
            The metrics, {} in processes other than the main one. None in all processes if the
            predictions cannot be used again; the log says why.
        """
        if not self._output_dir:
            return None
        why = ""
        if comm.is_main_process():
            why = why_not_reusable(self._output_dir, self.made_by or {})
            state = f"cannot be used again: {why}" if why else "are used again"
            logger.info(f"Predictions in {self._output_dir} {state}")
        if comm.all_gather(why)[0]:
            return None
        self._results: Dict[str, Any] = {}
        if comm.is_main_process():
            results, self.unreadable = read_saved(self._output_dir)
            self._warn_of_unreadable()
            self._evaluate_results(results)
        return self._results

    def _warn_of_unreadable(self) -> None:
        if self.unreadable:
            logger.warning(
                f"{len(self.unreadable)} images could not be read; their objects count as missed"
            )

    def _eval_predictions(self, predictions, img_ids=None) -> None:
        results = list(itertools.chain(*[p["instances"] for p in predictions]))
        if img_ids is not None or "keypoints" in self._tasks_of(results):
            return super()._eval_predictions(predictions, img_ids=img_ids)
        self._name_categories(results)
        if self._output_dir:
            save_results(self._output_dir, results)
            if self.made_by is not None:
                save_record(
                    self._output_dir,
                    self.made_by,
                    num_images=self.num_images,
                    unreadable=self.unreadable,
                )
        self._evaluate_results(results)

    def _tasks_of(self, results: List[Dict[str, Any]]) -> List[str]:
        return self._tasks or self._tasks_from_predictions(results)

    def _name_categories(self, results: List[Dict[str, Any]]) -> None:
        """Replace class indices by the category ids of the annotations, in place."""
        indices = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if indices is not None:
            ids = {index: id_ for id_, index in indices.items()}
            for result in results:
                result["category_id"] = ids[result["category_id"]]

    def _evaluate_results(self, results: List[Dict[str, Any]]) -> None:
        if not self._do_evaluation:
            logger.info("Annotations are not available for evaluation")
            return
        if not results:
            logger.warning("There are no detections, so AP is 0")
        metrics = {}
        tasks = sorted(self._tasks_of(results))
        for task in tasks:
            metrics[task] = coco_metrics(
                self._coco_api.dataset,
                results,
                max_detections=self._limit(results),
                backend=self._backend,
                iou_type=task,
                mask_areas="segm" in tasks,
                drop_unusable=False,  # left out already, if the data set is one of this package
            )
            logger.info(
                f"Evaluation results for {task}, by {metrics[task].backend}:\n"
                f"{metrics[task].table()}"
            )
            self._results[task] = _in_percent(metrics[task])
        if self._output_dir:
            with (
                replacing(os.path.join(self._output_dir, "results.json")) as partial,
                open(partial, "w", encoding="utf-8") as f,
            ):
                json.dump({task: m.to_json() for task, m in metrics.items()}, f, indent=1)

    def _limit(self, results: List[Dict[str, Any]]) -> int:
        if self._max_detections >= 0:
            return self._max_detections
        return largest_number(results)


def _in_percent(metrics: CocoMetrics) -> Dict[str, float]:
    """
    Name the metrics as Detectron2 does. Metrics of single classes are given only if there are
    several classes.
    """
    ret = {name: 100 * value for name, value in metrics.numbers.items()}
    if len(metrics.classes) > 1:
        ret.update({f"AP-{c.name}": 100 * c.AP for c in metrics.classes})
    return ret
