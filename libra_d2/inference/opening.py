"""Open any model that detects objects: a run, a checkpoint or an exported file."""

from typing import Any, Callable, List, Optional, Sequence

from ..errors import UserError
from .detector import Detector
from .exported_file import is_exported
from .onnx_detector import OnnxDetector


def open_detector(
    model: str = "",
    *,
    score_threshold: Optional[float] = None,
    top_k: Optional[int] = None,
    nms_threshold: Optional[float] = None,
    nms: str = "",
    config_file: str = "",
    opts: Sequence[str] = (),
    device: str = "",
    trust: bool = False,
    named: Callable[[str], str] = str,
) -> Detector:
    """
    Open a detector.

    Args:
        model: folder of a run, path or URL of a checkpoint, or path of an ONNX file that `libra-d2
            export` has written, which is recognized by its suffix `.onnx`.
        score_threshold, top_k: score threshold, and number of detections per image, instead of
            those of the model. Of an ONNX file, they can only be restricted further.
        nms_threshold, nms: IoU threshold, and type, of NMS. These and the following cannot be used
            with an ONNX file, except the device "cpu".
        config_file, opts, device, trust: see :func:`trained_config`. The thresholds above take
            precedence over `opts`.
        named: turns the name of an argument into that of the user's option, for messages.

    Raises:
        UserError: the model or an argument cannot be used.
    """
    thresholds = threshold_opts(score_threshold, nms_threshold, nms, top_k, named=named)
    if not is_exported(model):
        from .trained_detector import load_detector

        return load_detector(
            model,
            config_file=config_file,
            opts=[*opts, *thresholds],
            device=device,
            trust=trust,
        )
    of_nms = {"nms_threshold": nms_threshold is not None, "nms": nms}
    of_config = {"config_file": config_file, "opts": opts, "trust": trust}
    for name, is_given in {**of_nms, **of_config}.items():
        if is_given:
            inside = "NMS is" if name in of_nms else "all settings of the model are"
            raise UserError(
                f"{named(name)} cannot be used with {model}: {inside} inside the file. Export the "
                "detector again with other settings, or give its run"
            )
    if device not in ("", "cpu"):
        raise UserError(
            f"{named('device')} must be cpu for {model}, which ONNX Runtime runs on the CPU, got "
            f"{device!r}"
        )
    return OnnxDetector(model, score_threshold=score_threshold, top_k=top_k, named=named)


def threshold_opts(
    score_threshold: Optional[float] = None,
    nms_threshold: Optional[float] = None,
    nms: str = "",
    top_k: Optional[int] = None,
    *,
    named: Callable[[str], str] = str,
) -> List[Any]:
    """
    Return KEY VALUE pairs that set thresholds in a config. Arguments that are None or "" leave the
    config's values.

    Raises:
        UserError: a threshold is not in [0, 1], or `top_k` is below 1.

    Example::

        >>> threshold_opts(top_k=20, nms="linear")
        ['TEST.DETECTIONS_PER_IMAGE', 20, 'TEST.NMS.TYPE', 'linear']
    """
    opts: List[Any] = []
    thresholds = {"score_threshold": score_threshold, "nms_threshold": nms_threshold}
    for name, value in thresholds.items():
        if value is not None:
            if not 0 <= value <= 1:
                raise UserError(f"{named(name)} must be in [0, 1], got {value}")
            key = "SCORE_THRESH_TEST" if name == "score_threshold" else "NMS_THRESH_TEST"
            for head in ("ROI_HEADS", "RETINANET"):
                opts += [f"MODEL.{head}.{key}", float(value)]
    if top_k is not None:
        if top_k < 1:
            raise UserError(f"{named('top_k')} must be at least 1, got {top_k}")
        opts += ["TEST.DETECTIONS_PER_IMAGE", top_k]
    return opts + (["TEST.NMS.TYPE", nms] if nms else [])
