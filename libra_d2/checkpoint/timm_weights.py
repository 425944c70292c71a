"""
Pre-trained weights of timm's classifiers, for `MODEL.WEIGHTS timm://<name>`.

timm downloads the weights and converts them to the names of its model. The state dict is cached in
torch.hub's folder, so this happens only once.
"""

import re
from pathlib import Path

import torch
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler

from ..errors import UserError
from ..modeling.timm_backbone import import_timm
from ..utils.files import replacing

PREFIX = "timm://"


def timm_weights_file(name: str) -> str:
    """
    Return the path of a local file with the state dict of a pre-trained classifier of timm.

    Args:
        name: name for `timm.create_model`, with or without a tag, such as "resnet18" or
            "resnet18.a1_in1k".

    Raises:
        UserError: timm is not installed, has no such weights, or cannot download them.
    """
    # timm would also accept a path or anyone's repository (`hf-hub:`).
    if not re.fullmatch(r"\w[\w.\-]*", name, re.ASCII):
        raise UserError(f"MODEL.WEIGHTS {PREFIX}{name}: timm has no such weights")
    path = Path(torch.hub.get_dir()) / "timm" / f"{name}.pth"
    if path.is_file():
        return str(path)
    timm = import_timm()
    # For some names, timm only warns and uses random weights.
    if not timm.is_model_pretrained(name):
        raise UserError(f"MODEL.WEIGHTS {PREFIX}{name}: timm has no such weights")
    try:
        weights = timm.create_model(name, pretrained=True).state_dict()
    except Exception as e:  # timm's download clients have exceptions of their own
        raise UserError(
            f"MODEL.WEIGHTS {PREFIX}{name}: timm cannot download the weights "
            f"({type(e).__name__}: {e}). Put the state dict of the model at {path}, or give its "
            "path as MODEL.WEIGHTS"
        ) from e
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(str(path)) as partial:
        torch.save(weights, partial)
    return str(path)


class TimmWeightsHandler(PathHandler):
    """Lets Detectron2's PathManager read `timm://<name>`."""

    def _get_supported_prefixes(self):
        return [PREFIX]

    def _get_local_path(self, path, force=False, **kwargs):
        return timm_weights_file(path[len(PREFIX) :])

    def _isfile(self, path, **kwargs):
        return True

    def _open(self, path, mode="r", **kwargs):
        return PathManager.open(self._get_local_path(path), mode, **kwargs)


PathManager.register_handler(TimmWeightsHandler(), allow_override=True)
