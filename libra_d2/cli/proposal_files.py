"""The work of `libra-d2 proposals`: write proposals of a trained RPN to files for Fast R-CNN."""

import os
import pickle
from pathlib import Path
from typing import Any, Dict, List

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from detectron2.utils import comm

from ..checkpoint import LibraCheckpointer
from ..config.detectors import is_retinanet
from ..data.checks.images import require_readable
from ..engine import LibraTrainer
from ..errors import UserError
from ..utils.files import replacing


class ProposalWriter(DatasetEvaluator):
    """Writes the proposals of a `ProposalNetwork` for a data set, in Detectron2's file format."""

    def __init__(self, path: str):
        self.path = path

    def reset(self) -> None:
        self.proposals: List[Dict[str, Any]] = []

    def process(self, inputs, outputs) -> None:
        for record, output in zip(inputs, outputs):
            found = output["proposals"].to("cpu")
            if record.get("unreadable"):
                found = found[:0]
            self.proposals.append(
                {
                    "ids": record["image_id"],
                    "boxes": found.proposal_boxes.tensor.numpy(),  # XYXY, pixels of the file
                    "objectness_logits": found.objectness_logits.numpy(),
                }
            )

    def evaluate(self) -> Dict[str, int]:
        gathered = comm.gather(self.proposals)
        if not comm.is_main_process():
            return {}
        proposals = [p for of_process in gathered for p in of_process]
        content: Dict[str, Any] = {
            k: [p[k] for p in proposals] for k in ("ids", "boxes", "objectness_logits")
        }
        content["bbox_mode"] = int(BoxMode.XYXY_ABS)
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as partial:
            Path(partial).write_bytes(pickle.dumps(content))
        return {"images": len(proposals), "proposals": sum(map(len, content["boxes"]))}


@torch.no_grad()
def write_proposals(cfg: CfgNode, folder: str) -> Dict[str, str]:
    """
    Write the proposals of a trained RPN for all data sets of a config.

    Args:
        cfg: config of a detector with an RPN, such as configs/libra_r50.yaml, with the trained
            weights in `MODEL.WEIGHTS`. `MODEL.RPN.POST_NMS_TOPK_TRAIN` proposals are kept per
            training image, and `POST_NMS_TOPK_TEST` per test image.
        folder: folder in which `<data set>.pkl` is written for each data set of `DATASETS.TRAIN`
            and `DATASETS.TEST`.

    Returns:
        The path of each data set's file.

    Raises:
        UserError: the model has no RPN, the weights contain none, or no image can be read.
    """
    require_rpn(cfg)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        require_readable(name)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    model = build_model(cfg)
    checkpointer = LibraCheckpointer(model)
    checkpointer.load(cfg.MODEL.WEIGHTS)
    if checkpointer.backbone_only or not cfg.MODEL.WEIGHTS:
        raise UserError(
            f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS!r} has no trained RPN. Give the checkpoint of a "
            "trained detector, such as OUTPUT_DIR/model_final.pth"
        )
    files = {}
    num_kept = model.proposal_generator.post_nms_topk
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        split = "TRAIN" if name in cfg.DATASETS.TRAIN else "TEST"
        num_kept[False] = cfg.MODEL.RPN[f"POST_NMS_TOPK_{split}"]  # False: not in training
        files[name] = os.path.join(folder, f"{name}.pkl")
        loader = LibraTrainer.build_test_loader(cfg, name)
        inference_on_dataset(model, loader, ProposalWriter(files[name]))
    return files


def require_rpn(cfg: CfgNode) -> None:
    """
    Check that the config is of a detector that makes proposals.

    Raises:
        UserError: it is not.
    """
    if "RPN" not in cfg.MODEL.PROPOSAL_GENERATOR.NAME or is_retinanet(cfg):
        raise UserError(
            "the config must be of a detector with an RPN, such as configs/libra_r50.yaml, got "
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} with "
            f"MODEL.PROPOSAL_GENERATOR.NAME {cfg.MODEL.PROPOSAL_GENERATOR.NAME}"
        )
