"""The check of a run's data sets, by `libra-d2 check-data` and before training."""

import logging
import os
from typing import Any, Dict, List, Tuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import UserError
from ...utils.files import check_outputs
from ..images.packed_store import PREFIX as PACKED
from .annotations import check_annotations
from .findings import DatasetReport, Report
from .images import check_both_splits, check_images

logger = logging.getLogger(__name__)

# On the terminal, before a training.
_CLASSES_SHOWN = 10
_FINDINGS_SHOWN = 12


def check_datasets(cfg: CfgNode, *, thorough: bool) -> Report:
    """
    Check the data sets of `cfg.DATASETS.{TRAIN,TEST}`, which must be registered, images included.

    Args:
        cfg: after :func:`setup_datasets`.
        thorough: decode all images, and compare all of both splits. Otherwise at most
            `image_checks.QUICK_LIMIT` images of each data set are opened, spread evenly over it,
            and only their headers are read.
    """
    reports: List[DatasetReport] = []
    files: Dict[str, List[Tuple[DatasetReport, str]]] = {"train": [], "test": []}
    for split, names in (("train", cfg.DATASETS.TRAIN), ("test", cfg.DATASETS.TEST)):
        for name in dict.fromkeys(names):
            dicts = DatasetCatalog.get(name)
            if not all(isinstance(d, dict) and "file_name" in d for d in dicts):
                logger.warning(f"{name} is not checked: it is no list of images with annotations")
                continue
            report = _check_dataset(cfg, split, name, dicts, thorough)
            files[split] += [(report, d["file_name"]) for d in dicts]
            reports.append(report)
    check_both_splits(files["train"], files["test"], thorough)
    return Report(reports)


def check_before_training(cfg: CfgNode) -> None:
    """The quick check: a table and one line a finding go to the log, a report to OUTPUT_DIR."""
    report = check_datasets(cfg, thorough=False)
    path = default_report(cfg)
    report.save(path)
    logger.info(f"Data sets (details in {path}):\n{report.table(max_classes=_CLASSES_SHOWN)}")
    for i, finding in enumerate(report.findings):
        logger.log(finding.level if i < _FINDINGS_SHOWN else logging.DEBUG, finding.line())
    more = len(report.findings) - _FINDINGS_SHOWN
    if more > 0:
        logger.info(f"and {more} more findings in {path}")


def check_report_path(path: str, cfg: CfgNode, config_file: str) -> None:
    """
    Raises:
        UserError: the report would replace something that the check reads.
    """
    inputs: Dict[str, List[str]] = {
        "--config-file": [config_file],
        "the annotations": [],
        "the packed data": [],
        "the proposals": [*cfg.DATASETS.PROPOSAL_FILES_TRAIN, *cfg.DATASETS.PROPOSAL_FILES_TEST],
    }
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        metadata = MetadataCatalog.get(name)
        root = metadata.get("image_root", "")
        inputs["the annotations"].append(metadata.get("json_file", ""))
        if root.startswith(PACKED):
            inputs["the packed data"].append(root.removeprefix(PACKED))
        elif root and os.path.exists(path) and not path.lower().endswith(".json"):
            root, place = os.path.realpath(root), os.path.realpath(path)
            if os.path.commonpath([root, place]) == root:
                raise UserError(f"--report {path} would replace a file among the images in {root}")
    check_outputs({"--report": path}, inputs)


def default_report(cfg: CfgNode) -> str:
    return os.path.join(cfg.OUTPUT_DIR, "data_check.json")


def _check_dataset(
    cfg: CfgNode, split: str, name: str, dicts: List[Dict[str, Any]], thorough: bool
) -> DatasetReport:
    metadata = MetadataCatalog.get(name)
    report = DatasetReport(
        split=split,
        dataset=name,
        json_file=metadata.get("json_file", ""),
        image_root=metadata.get("image_root", ""),
        figures={"images": len(dicts)},
        classes={},
    )
    missing, unreadable = metadata.get("missing_images", ()), metadata.get("unreadable_images", ())
    total = len(dicts) + len(missing) + len(unreadable)
    report.add("missing_images", "images are missing, and left out", missing, total)
    report.add(
        "unreadable_images",
        "images have no size, since they cannot be read, and are left out",
        [f"{path} ({why})" for path, why in unreadable],
        total,
    )
    for check, text, found in metadata.get("notes", ()):
        report.add(check, text, found, max(total, len(found)))
    dummies = metadata.get("dummy_categories", ())
    report.add(
        "dummy_category",
        "categories have no objects and are the supercategory of all others, as in Roboflow's "
        "exports, and are left out",
        dummies,
        len(metadata.get("thing_classes", ())) + len(dummies),
        problem=False,
    )
    report.add(
        "found_elsewhere",
        "images are not where their names say, and are found by the end of the name",
        [f"{name} = {path}" for name, path in metadata.get("found_elsewhere", ())],
        total,
        problem=False,
    )
    if not cfg.MODEL.MASK_ON:
        report.add(
            "other_areas",
            "annotations have another area than their box, whose area counts (annotation ids)",
            metadata.get("other_areas", ()),
            sum(len(d.get("annotations", ())) for d in dicts),
        )
        report.add(
            "unused_masks",
            "annotations have a mask that cannot be used; a box detector uses the box "
            "(annotation ids)",
            metadata.get("bad_masks", ()),
            sum(len(d.get("annotations", ())) for d in dicts),
            problem=False,
        )
    check_annotations(report, dicts, metadata, cfg)
    check_images(report, dicts, thorough)
    return report
