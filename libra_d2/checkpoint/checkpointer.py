"""Detectron2's checkpointer, which also reads the weights of torchvision's classifiers."""

import logging
import os
import pickle
from pathlib import Path
from typing import Any, Dict, Optional

import torch
from detectron2.checkpoint import DetectionCheckpointer

from ..errors import UserError
from ..files import replacing
from ..modeling import BFP, TorchvisionBackbone
from .torchvision_weights import verify_hash_in_name

logger = logging.getLogger(__name__)


class LibraCheckpointer(DetectionCheckpointer):
    """
    Reads what upstream reads, and a classifier's state dict as torchvision publishes it: that goes
    into the model's :class:`TorchvisionBackbone`. `.pth` files are read with `weights_only`.
    """

    backbone_only = False  # whether what was loaded last is a classifier, not a detector

    def load(self, path: str, *args, **kwargs) -> Dict[str, Any]:
        if path and "://" not in path and not os.path.isfile(path.split("?")[0]):
            raise UserError(f"MODEL.WEIGHTS: checkpoint {path} does not exist")
        try:
            return super().load(path, *args, **kwargs)
        except (OSError, AssertionError, pickle.UnpicklingError) as e:
            raise UserError(f"MODEL.WEIGHTS: cannot load {path}: {e}") from e

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `<name>.pth` as upstream does, but whole or not at all."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **kwargs}
        data.update((key, value.state_dict()) for key, value in self.checkpointables.items())
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info(f"Saving checkpoint to {path}")
        with replacing(path) as partial:
            torch.save(data, partial)
        if name != "model_best":  # --resume goes on from the last one
            self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with replacing(os.path.join(self.save_dir, "last_checkpoint")) as partial:
            Path(partial).write_text(last_filename_basename)

    def _torch_load(self, f: str) -> Dict[str, Any]:
        verify_hash_in_name(f)
        try:
            loaded = torch.load(f, map_location="cpu", weights_only=True)
        except Exception as e:
            reason = str(e).splitlines()[0] if str(e) else repr(e)
            raise UserError(f"cannot read the checkpoint {f}: {reason}") from e
        if not isinstance(loaded, dict):
            raise UserError(f"the checkpoint {f} holds a {type(loaded).__name__}, not a state dict")
        return loaded

    def _load_model(self, checkpoint: Dict[str, Any]) -> Any:
        own = self.model.state_dict()
        for name, module in self.model.named_modules():
            if isinstance(module, BFP):
                # Before the shapes are compared, which upstream does by key.
                BFP.adopt_fpn_keys(checkpoint["model"], f"{name}.")
        prefix = self._classifier_prefix(checkpoint["model"])
        if prefix is not None:
            self.backbone_only = True
            return self._load_classifier(checkpoint, prefix, own)
        incompatible = super()._load_model(checkpoint)
        loaded = set(own) - set(incompatible.missing_keys)
        self.backbone_only = all(k.startswith("backbone.") for k in loaded)
        return incompatible

    def _load_classifier(self, checkpoint: Dict[str, Any], prefix: str, own: Dict[str, Any]) -> Any:
        weights = {prefix + k: v for k, v in checkpoint["model"].items() if prefix + k in own}
        if not weights:
            raise UserError(
                f"MODEL.WEIGHTS: no tensor of the ImageNet classifier fits {prefix[:-1]}, whose "
                f"first is {next(k for k in own if k.startswith(prefix))[len(prefix) :]}"
            )
        checkpoint["model"] = weights
        incompatible = super()._load_model(checkpoint)
        missing = incompatible.missing_keys
        inside = [k for k in missing if k.startswith(prefix)]
        logger.info(
            f"ImageNet weights: {len(own) - len(missing)} tensors into {prefix[:-1]}; the "
            f"{len(missing) - len(inside)} tensors behind it start from their initialisation"
        )
        missing[:] = inside  # the others are no surprise
        return incompatible

    def _classifier_prefix(self, weights: Dict[str, Any]) -> Optional[str]:
        """Where in the model the keys of a torchvision classifier belong; None if they are not."""
        if "classifier.1.weight" not in weights:
            return None
        for name, module in self.model.named_modules():
            if isinstance(module, TorchvisionBackbone):
                return f"{name}."
        return None
