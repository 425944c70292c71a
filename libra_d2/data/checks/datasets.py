"""Check the data sets of a run, for `libra-d2 check-data` and before training."""

import logging
import os
from typing import Any, Dict, List, Tuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import UserError
from ...utils.files import check_outputs
from ...utils.json_files import read_json
from ..images.packed_store import PREFIX as PACKED
from .annotations import check_annotations
from .findings import DatasetReport, Finding, Report
from .images import check_both_splits, check_images

logger = logging.getLogger(__name__)

# Numbers of lines that are logged before training.
_CLASSES_SHOWN = 10
_FINDINGS_SHOWN = 12


def check_datasets(cfg: CfgNode, *, thorough: bool) -> Report:
    """
    Check the annotations and images of the data sets of `cfg.DATASETS.{TRAIN,TEST}`.

    Args:
        cfg: a config whose data sets are registered, as by :func:`setup_datasets`.
        thorough: whether to decode all images and compare all images of both splits. Otherwise only
            the headers of at most `images.QUICK_LIMIT` images of each data set, evenly spread, are
            read.
    """
    reports: List[DatasetReport] = []
    files: Dict[str, List[Tuple[DatasetReport, str]]] = {"train": [], "test": []}
    for split, names in (("train", cfg.DATASETS.TRAIN), ("test", cfg.DATASETS.TEST)):
        for name in dict.fromkeys(names):
            dicts = DatasetCatalog.get(name)
            if not all(isinstance(d, dict) and "file_name" in d for d in dicts):
                logger.warning(
                    f"{name} is not checked, because it is not a list of images with annotations"
                )
                continue
            report = _check_dataset(cfg, split, name, dicts, thorough)
            files[split] += [(report, d["file_name"]) for d in dicts]
            reports.append(report)
    check_both_splits(files["train"], files["test"], thorough)
    return Report(reports)


def check_before_training(cfg: CfgNode) -> None:
    """
    Run the quick check. Log a table and the findings, and save a report in `OUTPUT_DIR`.

    Problems that other settings would solve are left to :func:`settings_that_do_not_fit`, which
    the run asks when its start-up is complete.
    """
    report = check_datasets(cfg, thorough=False)
    path = default_report(cfg)
    report.save(path)
    logger.info(f"Data sets (details in {path}):\n{report.table(max_classes=_CLASSES_SHOWN)}")
    findings = [f for f in report.findings if not _is_setting(f)]
    for i, finding in enumerate(findings):
        logger.log(finding.level if i < _FINDINGS_SHOWN else logging.DEBUG, finding.line())
    more = len(findings) - _FINDINGS_SHOWN
    if more > 0:
        logger.info(f"{path} lists {more} more findings")


def settings_that_do_not_fit(cfg: CfgNode) -> List[Finding]:
    """
    Return the problems in the report of :func:`check_before_training` that other settings would
    solve. Nothing if there is no report.
    """
    path = default_report(cfg)
    if not cfg.DATASETS.CHECK or not os.path.exists(path):
        return []
    datasets = read_json(path)["datasets"]
    findings = [Finding(**f) for dataset in datasets for f in dataset["findings"]]
    return [finding for finding in findings if _is_setting(finding)]


def _is_setting(finding: Finding) -> bool:
    return finding.problem and bool(finding.settings)


def check_output_path(option: str, path: str, cfg: CfgNode, config_file: str) -> None:
    """
    Check where a file on the data sets of a config would be written.

    Args:
        option: The option that names the path, for the message.

    Raises:
        UserError: The file would replace one that is read, such as an image.
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
                raise UserError(
                    f"{option} must not replace a file among the images in {root}, got {path}"
                )
    check_outputs({option: path}, inputs)


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
    report.add("missing_images", "images are missing, and are left out", missing, total)
    report.add(
        "unreadable_images",
        "images cannot be read, and are left out",
        [f"{path} ({why})" for path, why in unreadable],
        total,
    )
    for check, text, found in metadata.get("notes", ()):
        report.add(check, text, found, max(total, len(found)))
    dummies = metadata.get("dummy_categories", ())
    report.add(
        "dummy_category",
        "categories are left out, because they have no objects and are the supercategory of all "
        "others, as in Roboflow's exports",
        dummies,
        len(metadata.get("thing_classes", ())) + len(dummies),
        problem=False,
    )
    report.add(
        "found_elsewhere",
        "images are not at the path that their name gives, and are found by the end of the name",
        [f"{name} = {path}" for name, path in metadata.get("found_elsewhere", ())],
        total,
        problem=False,
    )
    if not cfg.MODEL.MASK_ON:
        report.add(
            "other_areas",
            "annotations have an area other than that of their box, which is used (annotation ids)",
            metadata.get("other_areas", ()),
            sum(len(d.get("annotations", ())) for d in dicts),
        )
        report.add(
            "unused_masks",
            "annotations have an invalid mask, which a box detector does not need (annotation ids)",
            metadata.get("bad_masks", ()),
            sum(len(d.get("annotations", ())) for d in dicts),
            problem=False,
        )
    check_annotations(report, dicts, metadata, cfg)
    check_images(report, dicts, thorough)
    return report
