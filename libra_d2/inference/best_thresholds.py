"""The best score thresholds of a detector: of its run's analysis, or inside an exported file."""

import logging
import os
from typing import Union

from ..errors import UserError
from ..evaluation.analysis.files import read_analysis
from ..evaluation.run_thresholds import (
    NoBestThresholdsError,
    analysis_of_run,
    best_in_analysis,
    best_of_run,
    given_thresholds,
)
from ..predictions.score_thresholds import ScoreThresholds
from ..utils.messages import printable
from .detector import Detector
from .exported_file import is_exported
from .onnx_detector import OnnxDetector
from .opening import open_detector

logger = logging.getLogger(__name__)


def best_thresholds(detector: Detector) -> ScoreThresholds:
    """
    Return the best score thresholds of a detector. If they were found for other weights, or not
    for all classes, a warning says so.

    Args:
        detector: see :func:`open_detector`.

    Raises:
        NoBestThresholdsError: the run has no analysis, or the exported file no thresholds.
        UserError: the analysis cannot be read, or is of other classes.
    """
    if isinstance(detector, OnnxDetector):
        return _inside_file(detector)
    # Exported files do without torch, which these import.
    from ..predictions.saved_predictions import weights_hash
    from .trained_detector import TrainedDetector

    path = analysis_of_run(detector.folder)
    analysis = read_analysis(path)
    found = best_in_analysis(analysis, path)
    _require_classes(detector, found, path)
    weights = analysis.settings.weights
    if isinstance(detector, TrainedDetector) and weights not in (
        None,
        weights_hash(detector.model),
    ):
        logger.warning(
            f"The score thresholds in {printable(path)} were found for other weights of this run. "
            "To find those of these weights, evaluate and analyze them again"
        )
    return found


def best_of_model(model: str) -> ScoreThresholds:
    """
    Return the best score thresholds of a model that is not loaded otherwise.

    Args:
        model: folder of a run, a checkpoint in it, or an ONNX file.

    Raises:
        NoBestThresholdsError, UserError: see :func:`best_thresholds`.
    """
    if is_exported(model):
        return best_thresholds(open_detector(model))
    return best_of_run(model if os.path.isdir(model) else os.path.dirname(model) or ".")


def thresholds_of_detector(detector: Detector, value: Union[float, str]) -> ScoreThresholds:
    """
    Return the score thresholds that a user has given for a detector, see :func:`given_thresholds`.
    A warning names classes whose thresholds are below that of the model.

    Raises:
        UserError: there are no such thresholds.
    """
    found = given_thresholds(value, lambda: best_thresholds(detector))
    if isinstance(value, str):
        _require_classes(detector, found, value)
    low = [name for name in detector.class_names if found.of(name) < detector.score_threshold]
    if low:
        logger.warning(
            f"Detections of {_listed(low)} are returned from {detector.score_threshold:g} on, the "
            f"score threshold of the model, because their best ones are lower"
        )
    return found


def _inside_file(detector: OnnxDetector) -> ScoreThresholds:
    values = detector.metadata.best_thresholds
    if values is None:
        raise NoBestThresholdsError(
            f"{printable(detector.path)} has no best score thresholds. Run `libra-d2 analyze "
            "--model RUN` for its run, and export it again"
        )
    source = f"the best thresholds in {printable(detector.path)}"
    return ScoreThresholds(max(values), dict(zip(detector.class_names, values)), source)


def _require_classes(detector: Detector, found: ScoreThresholds, path: str) -> None:
    missing = found.without_own(detector.class_names)
    if not missing:
        return
    if len(missing) == len(detector.class_names):
        raise UserError(
            f"the score thresholds of {printable(path)} must be those of the detector's classes "
            f"{_listed(missing)}, got those of {_listed(list(found.classes))}"
        )
    logger.warning(f"{printable(path)}: {printable(found.note_on_missing(missing))}")


def _listed(names) -> str:
    return printable(", ".join(names[:5]) + (f" and {len(names) - 5} more" * (len(names) > 5)))
