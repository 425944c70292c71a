"""Detectron2's DefaultTrainer with libra_d2's mapper, checkpointer, evaluator and pictures."""

import logging
import os
import warnings
import weakref
from pathlib import Path
from typing import Any, Dict, List

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
    hooks,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..checkpoint import LibraCheckpointer
from ..data import LibraDatasetMapper
from ..errors import UserError
from ..evaluation import LibraCOCOEvaluator
from ..modeling import build_tta
from .hooks import BestCheckpointer, RunPictures
from .solver import build_optimizer

logger = logging.getLogger(__name__)


class LibraTrainer(DefaultTrainer):
    """
    As upstream, and: an unreadable image does not end the run, data sets are evaluated by COCO's
    metrics, at the end also with test-time augmentation if `TEST.AUG.ENABLED`, and a loss curve and
    a grid of predictions are drawn.
    """

    def __init__(self, cfg: CfgNode):
        # As upstream's, which names a GPU to DistributedDataParallel even for a model on the CPU.
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        on_cpu = {"device_ids": None} if cfg.MODEL.DEVICE == "cpu" else {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*broadcast_buffers.*deprecated", FutureWarning)
            model = create_ddp_model(model, broadcast_buffers=False, **on_cpu)
        train_loop = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = train_loop(model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> List[HookBase]:
        self.checkpointer = LibraCheckpointer(
            self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        ret = super().build_hooks()
        if comm.is_main_process():
            for i, hook in enumerate(ret):
                if isinstance(hook, hooks.PeriodicCheckpointer):
                    hook.max_to_keep = self.cfg.SOLVER.CHECKPOINTS_TO_KEEP or None
                elif isinstance(hook, hooks.EvalHook) and self.cfg.TEST.BEST_METRIC:
                    best = BestCheckpointer(
                        self.cfg.TEST.EVAL_PERIOD, self.checkpointer, self.cfg.TEST.BEST_METRIC
                    )
                    ret.insert(i + 1, best)
            first = self.cfg.DATASETS.TEST[0] if self.cfg.DATASETS.TEST else ""
            ret.append(RunPictures(self.cfg, inference_dir(self.cfg, first)))
        if self.cfg.TEST.AUG.ENABLED:
            build_tta(self.cfg, self.model)  # a bad setting is refused here, not at the end
            last_eval = [i for i, hook in enumerate(ret) if isinstance(hook, hooks.EvalHook)][-1]
            ret.insert(last_eval + 1, hooks.EvalHook(0, self._test_with_tta_at_end))
        return ret

    def _test_with_tta_at_end(self) -> Dict[str, Any]:
        results = self.test_with_tta(self.cfg, self.model)
        self._last_eval_results = {**self._last_eval_results, **results}
        return results

    def resume_or_load(self, resume: bool = True) -> None:
        super().resume_or_load(resume)
        for hook in self._hooks:
            if resume and isinstance(hook, hooks.PeriodicCheckpointer):
                # Those of the run's earlier part count, too, among the number to keep.
                old = Path(self.cfg.OUTPUT_DIR).glob("model_[0-9]*.pth")
                hook.recent_checkpoints = sorted(str(p) for p in old)

    @classmethod
    def build_model(cls, cfg: CfgNode):
        try:
            return super().build_model(cfg)
        except (ValueError, KeyError) as e:  # a setting that a component refuses
            raise UserError(str(e.args[0]) if e.args else repr(e)) from e

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model):
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        return build_detection_train_loader(cfg, mapper=LibraDatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        mapper = LibraDatasetMapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, folder: str = "inference"
    ) -> DatasetEvaluator:
        return LibraCOCOEvaluator(dataset_name, output_dir=inference_dir(cfg, dataset_name, folder))

    @classmethod
    def test_with_tta(cls, cfg: CfgNode, model) -> Dict[str, Any]:
        """As `test`, with test-time augmentation: results under keys with the suffix `_TTA`."""
        logger.info("Evaluating with test-time augmentation")
        evaluators = [cls.build_evaluator(cfg, name, "inference_TTA") for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, build_tta(cfg, model), evaluators)
        return {f"{key}_TTA": value for key, value in results.items()}

    @classmethod
    def evaluate(cls, cfg: CfgNode, resume: bool = False):
        """
        Results of `MODEL.WEIGHTS`, or of the last checkpoint in `OUTPUT_DIR`, by test set; those
        of test-time augmentation, if `TEST.AUG.ENABLED`, have the suffix `_TTA`.
        """
        if not cfg.DATASETS.TEST:
            raise UserError("nothing to evaluate on: set DATASETS.TEST or DATASETS.TEST_JSON")
        model = cls.build_model(cfg)
        checkpointer = LibraCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
        from_run = resume and checkpointer.has_checkpoint()
        if checkpointer.backbone_only or not (from_run or cfg.MODEL.WEIGHTS):
            raise UserError(
                f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS!r} is no trained detector: name a checkpoint, "
                "such as OUTPUT_DIR/model_final.pth"
            )
        if cfg.TEST.AUG.ENABLED:
            build_tta(cfg, model)  # a bad setting is refused here, not after the plain evaluation
        results = cls.test(cfg, model)
        if cfg.TEST.AUG.ENABLED:
            results.update(cls.test_with_tta(cfg, model))
        return results


def inference_dir(cfg: CfgNode, dataset_name: str, folder: str = "inference") -> str:
    """Where the evaluation of a data set writes its predictions."""
    return os.path.join(cfg.OUTPUT_DIR, folder, dataset_name)
