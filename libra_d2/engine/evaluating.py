"""
Functions that implement the evaluation methods of :class:`LibraTrainer`.

They take the class of the trainer, and build loaders and evaluators with its methods, so
that a subclass of the trainer can override them.
"""

import logging
import os
from typing import Any, Callable, Dict, List, Sequence, Type, Union

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.utils import comm
from torch import nn

from ..checkpoint import LibraCheckpointer
from ..checkpoint.checkpointer import load_trained
from ..data import LibraDatasetMapper
from ..data.checks.config_limits import warn_of_limits
from ..data.checks.images import require_readable
from ..data.datasets.setup import class_names
from ..data.loader_workers import WatchedLoader
from ..data.precomputed_proposals import dataset_dicts
from ..errors import UserError
from ..evaluation import LibraCOCOEvaluator
from ..evaluation.coco_metrics import chosen_backend, evaluation_limit
from ..evaluation.validation_loss import validation_losses
from ..modeling import build_tta
from ..predictions.saved_predictions import made_by
from ..utils.progress import progress

logger = logging.getLogger(__name__)


def inference_dir(cfg: CfgNode, dataset_name: str, folder: str = "inference") -> str:
    """Return the folder to which the evaluation of a data set writes its predictions."""
    return os.path.join(cfg.OUTPUT_DIR, folder, dataset_name)


def build_test_loader(cfg: CfgNode, dataset_name: str) -> WatchedLoader:
    """Build Detectron2's test loader, with a clear error if one of its workers dies."""
    mapper = LibraDatasetMapper(cfg, is_train=False)
    dicts = dataset_dicts(cfg, "TEST", [dataset_name], filter_empty=False)
    loader = build_detection_test_loader(
        dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS
    )
    return WatchedLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=loader.sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )


def build_evaluator(
    cfg: CfgNode, dataset_name: str, folder: str = "inference"
) -> LibraCOCOEvaluator:
    """Build the evaluator of COCO's metrics that `TEST` describes."""
    return LibraCOCOEvaluator(
        dataset_name,
        output_dir=inference_dir(cfg, dataset_name, folder),
        backend=cfg.TEST.EVAL_BACKEND,
        max_dets_per_image=evaluation_limit(cfg.TEST.DETECTIONS_PER_IMAGE),
    )


def test_on_datasets(
    trainer: Type[DefaultTrainer],
    cfg: CfgNode,
    model: nn.Module,
    evaluators: Union[DatasetEvaluator, Sequence[DatasetEvaluator], None] = None,
    reuse: bool = False,
) -> Dict[str, Any]:
    """See :meth:`LibraTrainer.test`."""
    names = cfg.DATASETS.TEST
    if isinstance(evaluators, DatasetEvaluator):
        evaluators = [evaluators]
    if evaluators is not None and len(evaluators) != len(names):
        raise ValueError(
            f"evaluators must have one item for each of the {len(names)} data sets {names}, got "
            f"{len(evaluators)}"
        )
    results: Dict[str, Any] = {}
    for i, name in enumerate(names):
        loader = trainer.build_test_loader(cfg, name)  # first: it loads the data set
        evaluator = evaluators[i] if evaluators else trainer.build_evaluator(cfg, name)
        if isinstance(evaluator, LibraCOCOEvaluator) and comm.is_main_process():
            evaluator.made_by = made_by(cfg, name, evaluator.images, model)
        results[name] = evaluate_dataset(model, name, loader, evaluator, reuse)
    return results[names[0]] if len(names) == 1 else results


def evaluate_dataset(
    model: Callable[[Any], Any],
    name: str,
    loader: WatchedLoader,
    evaluator: DatasetEvaluator,
    reuse: bool,
) -> Dict[str, Any]:
    """
    Evaluate a model on one data set, and print the metrics.

    Args:
        model: takes a batch of the loader and returns what the evaluator processes, such as a
            detector in torch.
        name: of the data set.
        loader: see :func:`build_test_loader`.
        evaluator: see :func:`build_evaluator`.
        reuse: evaluate saved predictions instead if they were made by `evaluator.made_by`.

    Returns:
        The metrics by task, {} in processes other than the main one.
    """
    results = None
    if reuse and isinstance(evaluator, LibraCOCOEvaluator):
        results = evaluator.evaluate_saved()
    if results is None:
        disable = not comm.is_main_process()
        results = inference_on_dataset(
            model, progress(loader, f"Evaluating on {name}", disable=disable), evaluator
        )
    if comm.is_main_process():
        print_csv_format(_without_average_recalls(results))
    return results


def _without_average_recalls(results: Dict[str, Any]) -> Dict[str, Any]:
    """Drop the average recalls, so that the printed line of numbers is that of Detectron2."""
    return {
        task: {k: v for k, v in numbers.items() if not k.startswith("AR")}
        if isinstance(numbers, dict)
        else numbers
        for task, numbers in results.items()
    }


def test_with_tta(
    trainer: Type[DefaultTrainer], cfg: CfgNode, model: nn.Module, reuse: bool = False
) -> Dict[str, Any]:
    """See :meth:`LibraTrainer.test_with_tta`."""
    logger.info("Evaluating with test-time augmentation")
    evaluators: List[DatasetEvaluator] = [
        trainer.build_evaluator(cfg, name, "inference_TTA") for name in cfg.DATASETS.TEST
    ]
    results = trainer.test(cfg, build_tta(cfg, model), evaluators, reuse)
    return {f"{key}_TTA": value for key, value in results.items()}


def test_with_validation_loss(
    trainer: Type[DefaultTrainer], cfg: CfgNode, model: nn.Module
) -> Dict[str, Any]:
    """Evaluate during training, and compute the losses as well if `TEST.VALIDATION_LOSS` is set."""
    results = trainer.test(cfg, model)
    losses = validation_losses(cfg, model) if cfg.TEST.VALIDATION_LOSS else {}
    if losses:
        logger.info(f"Validation loss: {losses}")
        results["validation"] = losses
    return results


def require_test_sets(cfg: CfgNode) -> None:
    """
    Check that there is something to evaluate on.

    Raises:
        UserError: `DATASETS.TEST` is empty.
    """
    if not cfg.DATASETS.TEST:
        raise UserError(
            "DATASETS.TEST must name at least one data set, got (). Set it, for example, to "
            "coco:val.json,images"
        )


def evaluate_weights(
    trainer: Type[DefaultTrainer], cfg: CfgNode, resume: bool = False, reuse: bool = False
) -> Dict[str, Any]:
    """See :meth:`LibraTrainer.evaluate`."""
    require_test_sets(cfg)
    chosen_backend(cfg.TEST.EVAL_BACKEND)
    for name in cfg.DATASETS.TEST if not reuse else ():
        require_readable(name)
    model = trainer.build_model(cfg)
    checkpointer = LibraCheckpointer(
        model, cfg.OUTPUT_DIR, class_names=class_names(cfg), require_classes=True
    )
    load_trained(checkpointer, cfg.MODEL.WEIGHTS, resume=resume)
    if cfg.TEST.AUG.ENABLED:
        build_tta(cfg, model)  # reports a bad setting before the plain evaluation, not after it
    results = trainer.test(cfg, model, reuse=reuse)
    if cfg.TEST.AUG.ENABLED:
        results.update(trainer.test_with_tta(cfg, model, reuse))
    if comm.is_main_process():
        warn_of_limits(cfg)  # below the results, which they lower
    return results
