"""Detectron2's checkpointer, which also reads weights of mmdetection and of classifiers."""

import contextlib
import logging
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, List, Optional, Sequence, Set, Tuple

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from iopath.common.file_io import PathManager
from torch import nn

from ..errors import UserError
from ..modeling.default_trainer import allow_any_weights
from ..utils.files import file_stamp, replacing
from ..utils.messages import printable
from ..utils.progress import progress
from ..utils.system_errors import writing
from .changes import changed_settings, listed
from .checkpoint_files import (
    check_finite,
    class_names_in,
    note_on_averaged,
    read_checkpoint,
    without_wrappers,
)
from .file_bounds import check_file
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
    loaded_classes: Tuple[List[str], List[int]] = ([], [])  # its class names and category ids

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        class_names: Sequence[str] = (),
        category_ids: Sequence[int] = (),
        require_classes: bool = False,
        weights_to_save: Callable[[], ContextManager] = contextlib.nullcontext,
        settings: str = "",
        **kwargs,
    ):
        """
        Args:
            class_names: written into checkpoints, and compared with theirs. A run that is resumed
                must have the same.
            category_ids: of the classes, written beside their names.
            require_classes: the classes must also be the same if only weights are loaded.
            weights_to_save: gives a context in which the model has the weights to be saved.
            settings: the config as YAML, saved with them. What a resumed run changes is found
                by comparison.
            Others: see :class:`DetectionCheckpointer`.
        """
        super().__init__(model, save_dir, **kwargs)
        allow_any_weights(self.model)
        self.path_manager = PathManager()  # without handlers: files of this machine alone
        self.class_names = list(class_names)
        self.category_ids = list(category_ids)
        self.require_classes = require_classes
        self.weights_to_save = weights_to_save
        self.settings = settings
        self.settings_before = ""  # those of the checkpoint that was loaded last
        self.resumes_after: Optional[int] = None  # iteration of the last checkpoint to resume from
        self._warned: Set[str] = set()
        self._whole: Dict[str, List[int]] = {}  # size and time of files known to be whole

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
        with writing(path), self.weights_to_save(), replacing(path) as partial:
            classes = {"class_names": self.class_names, "category_ids": self.category_ids}
            data = {"model": self.model.state_dict(), **classes, **kwargs}
            data.update((key, value.state_dict()) for key, value in self.checkpointables.items())
            data["settings"] = self.settings
            with open(partial, "wb") as f:  # given a path, torch hides why it could not write
                torch.save(data, f)
        self._whole[path] = file_stamp(path)
        if tag:
            self.tag_last_checkpoint(os.path.basename(path))
            self.resumes_after = kwargs.get("iteration")

    def link(self, name: str, new_name: str) -> None:
        """Give a checkpoint a second name, in place of whatever has that name."""
        source, target = (os.path.join(self.save_dir, f"{n}.pth") for n in (name, new_name))
        if not self.save_to_disk or not os.path.isfile(source):
            return
        with writing(target), replacing(target) as partial:
            os.remove(partial)
            try:
                os.link(source, partial)
            except OSError:  # a file system without links
                shutil.copyfile(source, partial)

    def has_checkpoint(self) -> bool:
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """
        The checkpoint that was saved last, or if it is damaged or nothing says which one that is,
        the one of the folder with the most iterations; "" if there is none.

        Raises:
            UserError: all are damaged.
        """
        last = self._tagged()
        if last and self._is_whole(last):
            return last
        others = [str(p) for p in Path(self.save_dir).glob("model_*.pth") if str(p) != last]
        if not last and not others:
            return ""
        if last:
            self._warn(f"The checkpoint {last} is damaged or missing, the one before it is used")
        ranked = sorted(((_iteration(p), os.path.getmtime(p), p) for p in others), reverse=True)
        for iteration, _, path in ranked:
            if (last or iteration >= 0) and self._is_whole(path):
                if not last:
                    self._warn(
                        f"{os.path.join(self.save_dir, 'last_checkpoint')} is missing or damaged; "
                        f"the checkpoint with the most iterations is {path}"
                    )
                return path
        if not last and all(iteration < 0 and self._is_whole(p) for iteration, _, p in ranked):
            return ""  # weights alone, that somebody has put there
        raise UserError(
            f"no checkpoint in {self.save_dir} can be read: start a new run in another OUTPUT_DIR"
        )

    def _tagged(self) -> str:
        """The path in `last_checkpoint`; "" if there is none that makes sense."""
        try:
            name = Path(self.save_dir, "last_checkpoint").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return ""
        is_name = name.endswith(".pth") and name == os.path.basename(name) and name.isprintable()
        return os.path.join(self.save_dir, name) if is_name else ""

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            logger.warning(text)
        self._warned.add(text)

    def _is_whole(self, path: str) -> bool:
        """Whether all checksums in the file hold, and torch finds its way through it."""
        try:
            known = self._whole.get(path) == file_stamp(path)
            if not known:
                check_file(path)
                _verify_checksums(path)
                known = _content(path) is not None
        except Exception:  # of many kinds: damage in the directory is taken for what it looks like
            return False
        if known:
            self._whole[path] = file_stamp(path)
        return known

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        path = os.path.join(self.save_dir, "last_checkpoint")
        with writing(path), replacing(path) as partial:
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
        names = class_names_in(checkpoint)
        self._compare_classes(names)
        self.loaded_classes = (names, list(checkpoint.get("category_ids") or ()))
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
        if self._resuming and "trainer" in checkpoint and "trainer" in self.checkpointables:
            self.settings_before = str(checkpoint.pop("settings", ""))
            self._refuse_other_model(report)
        if not report.loaded:
            raise UserError(
                f"MODEL.WEIGHTS: nothing in {self._path} fits the model. It begins with "
                f"{_first_keys(in_file)}; the model has {_first_keys(own)}"
            )
        self.backbone_only = all(k.startswith("backbone.") for k in report.loaded)
        self.report = report
        self._log(report, origin)

    def _refuse_other_model(self, report: LoadReport) -> None:
        """A run goes on with the model it began with."""
        shapes = [f"{k} {list(a)} -> {list(b)}" for k, (a, b) in report.resized.items()]
        changes = [*shapes, *(f"{k} is gone" for k in report.skipped)]
        changes += [f"{k} is new" for k in report.missing]
        if not changes:
            return
        settings = changed_settings(self.settings_before, self.settings, ("MODEL.",))
        tensors = f"{len(changes)} tensors of the model, such as {changes[0]}"
        what = f"{listed(settings)} ({tensors})" if settings else tensors
        raise UserError(
            f"--resume cannot go on from {self._path} with another model: {what}. Take the "
            "change back, or start a new run with these weights as MODEL.WEIGHTS"
        )

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
        logger.debug(f"Tensors of the weights:\n{report.details()}")  # a run writes weights.txt
        if report.is_complete() and origin == DETECTRON2:
            logger.info(f"All {len(report.loaded)} tensors of {self._path} were loaded")
            return
        logger.info(f"Weights of {self._path} ({origin}):\n{report.table()}")
        for note in report.notes():
            # That what is behind a backbone starts anew is no surprise.
            logger.log(logging.DEBUG if self.backbone_only else logging.WARNING, note)
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


def load_trained(checkpointer: LibraCheckpointer, weights: str, resume: bool = False) -> None:
    """
    Load a trained detector into the checkpointer's model.

    Args:
        weights: `MODEL.WEIGHTS`.
        resume: take the last checkpoint of the checkpointer's folder instead, if there is one.

    Raises:
        UserError: there is none, it is a classifier, or it leaves a part of the model untrained.
    """
    checkpointer.resume_or_load(weights, resume=resume)
    from_run = resume and checkpointer.has_checkpoint()
    if checkpointer.backbone_only or not (from_run or weights):
        raise UserError(
            f"MODEL.WEIGHTS {weights!r} is no trained detector: name a checkpoint, such as "
            "OUTPUT_DIR/model_final.pth"
        )
    if checkpointer.report is not None and checkpointer.report.untrained():
        first = checkpointer.report.untrained()[0]
        raise UserError(
            f"{weights} does not have all of this model, such as {first}: train it before it is "
            "evaluated, or take the config and the classes of the checkpoint"
        )


def _verify_checksums(path: str) -> None:
    """
    As `ZipFile.testzip`, with progress.

    Raises:
        zipfile.BadZipFile: among others, a checksum does not hold.
    """
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
        total = sum(member.file_size for member in members)
        desc = f"Verifying {printable(os.path.basename(path))}"
        with progress(desc=desc, total=total, unit="B", unit_scale=True) as bar:
            for member in members:
                with file.open(member) as content:
                    while block := content.read(1 << 20):
                        bar.update(len(block))


def _content(path: str) -> Optional[Dict[str, Any]]:
    """What a checkpoint holds, its tensors not read yet; None if it is none."""
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content if isinstance(content, dict) and "model" in content else None


def _iteration(path: str) -> int:
    """The iteration after which a checkpoint was saved; -1 if it cannot be resumed from."""
    try:
        content = _content(path) or {}
        return int(content["iteration"]) if "trainer" in content else -1
    except Exception:  # as a damaged file raises
        return -1


def _first_keys(shapes: Dict[str, tuple], count: int = 3) -> str:
    return ", ".join(f"{k} {list(v)}" for k, v in list(shapes.items())[:count])
