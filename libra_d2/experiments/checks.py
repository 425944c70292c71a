"""Checks of a whole experiment before anything is trained, and the weights that its runs share."""

import os
from contextlib import contextmanager
from typing import Dict, Iterator, List

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from ..checkpoint import LibraCheckpointer
from ..config import load_cfg, names_num_classes
from ..config.checks import check_schedule
from ..config.loading import refuse
from ..data import setup_datasets
from ..data.datasets.setup import category_ids, class_names
from ..data.epochs import in_iterations
from ..engine import LibraTrainer
from ..errors import UserError
from ..modeling.build import build_model
from ..utils.progress import announced
from .commands import config_file, initial_weights, settings
from .design import Design, Run


def check_settings(design: Design, *, trust: bool = False) -> None:
    """
    Check the settings of all variants, without the data, the plan and the models.

    Raises:
        UserError: a setting has a mistake. The message names the variant that has it.
    """
    opts = ["DATASETS.TRAIN", design.train, "DATASETS.TEST", design.test or design.train]
    opts += ["OUTPUT_DIR", design.output]
    load_cfg(
        design.base, [*design.overrides, *opts], trust=trust or None, purpose="train"
    )  # the mistakes of all variants
    for variant in design.variants:
        with _naming(f"variant {variant.name}"):
            words = [*design.overrides_of(variant.name), *opts]
            load_cfg(design.base, words, trust=trust or None, purpose="train")


def check_variants(design: Design, scratch: str, *, trust: bool = False) -> Dict[str, CfgNode]:
    """
    Load the config of each variant, set up its data, and build its model, as a run would.

    Args:
        design: its folds and plan have been made.
        scratch: folder for annotations that are converted to COCO's format.

    Returns:
        Name of the variant -> config of a run, with the schedule in iterations.

    Raises:
        UserError: a run could not start. The message names the variant.
    """
    first = design.runs()[0]
    cfgs = {}
    with announced("Checking the config and the model of each variant"):
        for variant in design.variants:
            run = Run(variant.name, first.seed, first.fold, first.folder)
            with _naming(f"variant {variant.name}"):
                cfgs[variant.name] = _checked(
                    config_file(design), [*settings(design, run), "OUTPUT_DIR", scratch], trust
                )
    return cfgs


def _checked(file: str, opts: List[str], trust: bool) -> CfgNode:
    cfg = load_cfg(file, opts, trust=trust or None, purpose="train")
    setup_datasets(cfg, num_classes_given=names_num_classes(file, opts))
    cfg = in_iterations(cfg)
    refuse(check_schedule(cfg, opts[0::2]))
    if len(cfg.DATASETS.TEST) != 1:
        raise UserError(
            f"--test must be one data set, got {len(cfg.DATASETS.TEST)}. The variants are compared "
            "by their AP on it"
        )
    build_model(_on_cpu(cfg))
    return cfg


@contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except UserError as e:
        raise UserError(f"{what}: {e}") from e


def _on_cpu(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def shares_weights(cfgs: Dict[str, CfgNode], baseline: str) -> Dict[str, bool]:
    """
    Tell which variants start with the weights of the baseline: those with its `MODEL.WEIGHTS`. The
    others name weights of their own, such as those of another backbone.
    """
    theirs = cfgs[baseline].MODEL.WEIGHTS
    return {name: theirs == cfg.MODEL.WEIGHTS for name, cfg in cfgs.items()}


def write_initial_weights(design: Design, baseline: CfgNode, seed: int) -> None:
    """
    Write the weights with which the runs of a seed start, unless the file is there: those of the
    baseline's model, built with this seed, and with its `MODEL.WEIGHTS`. Parts that only other
    variants have are initialized by their runs.

    Args:
        baseline: config of a run of the baseline, from :func:`check_variants`.
    """
    path = initial_weights(design, seed)
    if os.path.isfile(path):
        return
    cfg = _on_cpu(baseline)
    seed_all_rng(seed)  # as a run does before it builds its model
    model = LibraTrainer.build_model(cfg)
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    checkpointer = LibraCheckpointer(
        model, folder, class_names=class_names(cfg), category_ids=category_ids(cfg)
    )
    checkpointer.load(cfg.MODEL.WEIGHTS, checkpointables=[])
    checkpointer.save(os.path.splitext(name)[0], tag=False)
