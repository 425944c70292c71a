"""Detectron2's checkpointer, which also reads weights of mmdetection and of classifiers."""

import contextlib
import logging
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, List, Optional, Sequence, Tuple

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from iopath.common.file_io import PathManager
from torch import nn

from ..errors import UserError
from ..files import replacing
from .checkpoint_files import (
    check_finite,
    class_names_in,
    note_on_averaged,
    read_checkpoint,
    without_wrappers,
)
from .foreign import CLASSIFIER, DETECTRON2, adapt, unfit_settings
from .load_report import LoadReport
from .weights_files import parse_weights, weights_file

logger = logging.getLogger(__name__)

# What `libra-d2 convert` notes in a file, and what its weights need as much as the original's.
_CONVERTED = {"mmdetection": "mmdetection", "torchvision": CLASSIFIER}


class LibraCheckpointer(DetectionCheckpointer):
    """
    Reads what upstream reads, checkpoints of mmdetection, and a classifier's state dict as
    torchvision publishes it, which goes into the backbone. What they are is read from their keys.
    No code in a file runs: see :mod:`.safe_pickle`. Saves whole files, and resumes from whole ones.
    """

    backbone_only = False  # whether what was loaded last is a classifier, not a detector
    report: Optional[LoadReport] = None  # of what was loaded last

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        class_names: Sequence[str] = (),
        category_ids: Sequence[int] = (),
        require_classes: bool = False,
        weights_to_save: Callable[[], ContextManager] = contextlib.nullcontext,
        **kwargs,
    ):
        """
        Args:
            class_names: written into checkpoints, and compared with theirs. A run that is resumed
                must have the same.
            category_ids: of the classes, written beside their names.
            require_classes: the classes must also be the same if only weights are loaded.
            weights_to_save: gives a context in which the model has the weights to be saved.
            Others: see :class:`DetectionCheckpointer`.
        """
        super().__init__(model, save_dir, **kwargs)
        self.path_manager = PathManager()  # without handlers: files of this machine alone
        self.class_names = list(class_names)
        self.category_ids = list(category_ids)
        self.require_classes = require_classes
        self.weights_to_save = weights_to_save
        self._whole: Dict[str, Tuple[int, int]] = {}  # size and time of files known to be whole

    def load(self, path: str, checkpointables: Optional[List[str]] = None) -> Dict[str, Any]:
        self._path = path
        self._resuming = checkpointables is None
        if path:
            self._name = parse_weights(path)
            path = os.path.abspath(weights_file(self._name))
        try:
            return super().load(path, checkpointables)
        except (OSError, AssertionError) as e:
            raise UserError(f"MODEL.WEIGHTS: cannot load {self._path}: {e}") from e
        finally:
            self._parsed_url_during_load = None  # upstream leaves it behind if it raises

    def save(self, name: str, *, tag: bool = True, **kwargs: Any) -> None:
        """
        Write `<name>.pth` as upstream does, but whole or not at all.

        Args:
            tag: whether `--resume` goes on from this checkpoint.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info(f"Saving checkpoint to {path}")
        with self.weights_to_save(), replacing(path) as partial:
            classes = {"class_names": self.class_names, "category_ids": self.category_ids}
            data = {"model": self.model.state_dict(), **classes, **kwargs}
            data.update((key, value.state_dict()) for key, value in self.checkpointables.items())
            torch.save(data, partial)
        self._whole[path] = _size_and_time(path)
        if tag:
            self.tag_last_checkpoint(os.path.basename(path))

    def link(self, name: str, new_name: str) -> None:
        """Give a checkpoint a second name, in place of whatever has that name."""
        source, target = (os.path.join(self.save_dir, f"{n}.pth") for n in (name, new_name))
        if not self.save_to_disk or not os.path.isfile(source):
            return
        with replacing(target) as partial:
            os.remove(partial)
            try:
                os.link(source, partial)
            except OSError:  # a file system without links
                shutil.copyfile(source, partial)

    def has_checkpoint(self) -> bool:
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """
        The checkpoint that was saved last, or if it is damaged, the newest one of the folder that
        is not; "" if there is none.

        Raises:
            UserError: all are damaged.
        """
        last = super().get_checkpoint_file()
        if not last:
            return ""
        others = sorted(
            Path(self.save_dir).glob("model_*.pth"), key=lambda p: p.stat().st_mtime, reverse=True
        )
        for path in dict.fromkeys([last, *map(str, others)]):
            if self._is_whole(path):
                return path
            logger.warning(
                f"The checkpoint {path} is damaged or missing, the one before it is used"
            )
        raise UserError(f"no checkpoint in {self.save_dir} can be read: start without --resume")

    def _is_whole(self, path: str) -> bool:
        """Whether all checksums in the file hold."""
        try:
            known = self._whole.get(path) == _size_and_time(path)
            if not known:
                with zipfile.ZipFile(path) as file:
                    known = file.testzip() is None
        except (OSError, zipfile.BadZipFile):
            return False
        if known:
            self._whole[path] = _size_and_time(path)
        return known

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with replacing(os.path.join(self.save_dir, "last_checkpoint")) as partial:
            Path(partial).write_text(last_filename_basename)

    def _load_file(self, filename: str) -> Dict[str, Any]:
        checkpoint = read_checkpoint(filename, self._name.part)
        if self._name.matching_heuristics:
            checkpoint["matching_heuristics"] = True
        if not self._name.part:
            note = note_on_averaged(self._path, checkpoint)
            if note:
                logger.warning(note)
        return checkpoint

    def _load_model(self, checkpoint: Dict[str, Any]) -> None:
        self._compare_classes(class_names_in(checkpoint))
        self._convert_ndarray_to_tensor(checkpoint["model"])
        weights = without_wrappers(checkpoint["model"], self._path, self.model.state_dict())
        weights, origin = adapt(weights, self.model)
        if origin == DETECTRON2:  # a converted file says where it is from
            origin = _CONVERTED.get(checkpoint.get("__author__"), origin)
        own = {k: tuple(v.shape) for k, v in self.model.state_dict().items()}
        if checkpoint.pop("matching_heuristics", False):
            is_caffe2 = checkpoint.get("__author__") == "Caffe2"
            weights = align_and_update_state_dicts(
                self.model.state_dict(), weights, c2_conversion=is_caffe2
            )
        in_file = {k: tuple(v.shape) for k, v in weights.items()}
        check_finite({k: v for k, v in weights.items() if own.get(k) == in_file[k]}, self._path)
        checkpoint["model"] = weights
        incompatible = super()._load_model(checkpoint)
        report = LoadReport(
            loaded=[k for k in own if in_file.get(k) == own[k]],
            resized={k: (in_file[k], own[k]) for k in own if in_file.get(k, own[k]) != own[k]},
            skipped=incompatible.unexpected_keys,
            missing=[k for k in own if k not in in_file and not k.startswith("pixel_")],
        )
        if not report.loaded:
            raise UserError(
                f"MODEL.WEIGHTS: nothing in {self._path} fits the model. It begins with "
                f"{_first_keys(in_file)}; the model has {_first_keys(own)}"
            )
        self.backbone_only = all(k.startswith("backbone.") for k in report.loaded)
        self.report = report
        self._log(report, origin)

    def _compare_classes(self, theirs: List[str]) -> None:
        # mmdetection 1.x writes traffic_light.
        plain = [[name.replace("_", " ") for name in names] for names in (theirs, self.class_names)]
        if not theirs or not self.class_names or plain[0] == plain[1]:
            return
        text = f"{self._path} has the classes {theirs}, the data {self.class_names}"
        if self._resuming or self.require_classes:
            raise UserError(f"{text}: they must be the same, in the same order")
        if len(theirs) == len(self.class_names):  # else the layers are new, which is said below
            logger.warning(f"{text}; the layers of the classes are kept, as their number is equal")

    def _log(self, report: LoadReport, origin: str) -> None:
        if report.is_complete() and origin == DETECTRON2:
            logger.info(f"All {len(report.loaded)} tensors were loaded")
            return
        logger.info(f"Weights of {self._path} ({origin}):\n{report.table()}")
        for note in report.notes():
            # That what is behind a backbone starts anew is no surprise.
            logger.log(logging.INFO if self.backbone_only else logging.WARNING, note)
        body = [k for k in (*report.missing, *report.resized) if "bottom_up." in k]
        body += [k for k in report.skipped if "bottom_up." in k]
        body = [k for k in body if not k.endswith("num_batches_tracked")]
        if self.backbone_only and body:
            logger.warning(
                f"The weights are of another backbone than the model's: {len(body)} tensors of one "
                f"have no counterpart in the other, the first is {body[0]}"
            )
        for setting in unfit_settings(self.model, origin):
            logger.warning(f"The config does not fit weights of {origin} as published: {setting}")


def _size_and_time(path: str) -> Tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _first_keys(shapes: Dict[str, tuple], count: int = 3) -> str:
    return ", ".join(f"{k} {list(v)}" for k, v in list(shapes.items())[:count])
