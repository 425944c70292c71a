"""A checkpointer that extends Detectron2's to weights of mmdetection and of image classifiers."""

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

# Converted weights need the same settings as the originals. Maps the author that `libra-d2 convert`
# writes into a file to the origin that `unfit_settings` knows.
_CONVERTED = {"mmdetection": "mmdetection", "torchvision": CLASSIFIER}


class LibraCheckpointer(DetectionCheckpointer):
    """
    Load and save checkpoints of a detector.

    In addition to the files that Detectron2's `DetectionCheckpointer` reads, this class loads
    checkpoints of mmdetection and, into the backbone, state dicts of image classifiers. The format
    is recognized by the keys. Code in a file is never run (see :mod:`.safe_pickle`). Files are
    written completely or not at all, and damaged ones are not resumed from.
    """

    # These describe the checkpoint that was loaded last.
    backbone_only = False  # whether it is a classifier and not a detector
    report: Optional[LoadReport] = None
    loaded_classes: Tuple[List[str], List[int]] = ([], [])  # class names and category ids

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
            class_names: names that are saved in checkpoints and compared with those of loaded
                ones. A resumed run must have the same names.
            category_ids: ids of the classes, saved next to their names.
            require_classes: whether the names must also be the same if only weights are loaded.
            weights_to_save: returns a context in which the model has the weights to save.
            settings: the config as YAML, saved in checkpoints. A comparison shows what a resumed
                run changes.
            Others: see :class:`DetectionCheckpointer`.
        """
        super().__init__(model, save_dir, **kwargs)
        allow_any_weights(self.model)
        self.path_manager = PathManager()  # without handlers, it opens local files only
        self.class_names = list(class_names)
        self.category_ids = list(category_ids)
        self.require_classes = require_classes
        self.weights_to_save = weights_to_save
        self.settings = settings
        self.settings_before = ""  # settings of the checkpoint that was loaded last
        self.resumes_after: Optional[int] = None  # iteration of the last checkpoint for --resume
        self._warned: Set[str] = set()
        self._whole: Dict[str, List[int]] = {}  # size and time of files known to be intact

    def load(self, path: str, checkpointables: Optional[List[str]] = None) -> Dict[str, Any]:
        self._path = path
        self._resuming = checkpointables is None
        if path:
            self._name = parse_weights(path)
            path = os.path.abspath(weights_file(self._name))
        try:
            return super().load(path, checkpointables)
        except UserError:  # such as that of weights.txt, which cannot be written
            raise
        except (OSError, AssertionError) as e:
            raise UserError(f"MODEL.WEIGHTS: cannot load {self._path}: {e}") from e
        finally:
            self._parsed_url_during_load = None  # Detectron2 does not reset it after an error

    def save(self, name: str, *, tag: bool = True, **kwargs: Any) -> None:
        """
        Like Detectron2's method, write `<name>.pth`, but write it completely or not at all.

        Args:
            tag: whether `--resume` continues from this checkpoint.
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
            with open(partial, "wb") as f:  # for a path, torch hides the reason of a write error
                torch.save(data, f)
        self._whole[path] = file_stamp(path)
        if tag:
            self.tag_last_checkpoint(os.path.basename(path))
            self.resumes_after = kwargs.get("iteration")

    def link(self, name: str, new_name: str) -> None:
        """Give a checkpoint a second name, and replace the file that has this name."""
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
        Return the path of the checkpoint that was saved last; "" if there is none. If it is damaged
        or `last_checkpoint` does not name it, return the intact checkpoint with the most
        iterations.

        Raises:
            UserError: all checkpoints are damaged.
        """
        last = self._tagged()
        if last and self._is_whole(last):
            return last
        others = [str(p) for p in Path(self.save_dir).glob("model_*.pth") if str(p) != last]
        if not last and not others:
            return ""
        if last:
            self._warn(
                f"The checkpoint {last} is damaged or missing. The one before it is used instead"
            )
        ranked = sorted(((_iteration(p), os.path.getmtime(p), p) for p in others), reverse=True)
        for iteration, _, path in ranked:
            if (last or iteration >= 0) and self._is_whole(path):
                if not last:
                    self._warn(
                        f"{os.path.join(self.save_dir, 'last_checkpoint')} is missing or damaged. "
                        f"The checkpoint with the most iterations is used: {path}"
                    )
                return path
        if not last and all(iteration < 0 and self._is_whole(p) for iteration, _, p in ranked):
            return ""  # the files have weights only and were not saved by a run
        raise UserError(
            f"no checkpoint in {self.save_dir} can be read. Start a new run in another OUTPUT_DIR"
        )

    def _tagged(self) -> str:
        """Path of the file that `last_checkpoint` names; "" if it does not name a checkpoint."""
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
        """Whether a file has correct checksums and torch can read it."""
        try:
            known = self._whole.get(path) == file_stamp(path)
            if not known:
                check_file(path)
                _verify_checksums(path)
                known = _content(path) is not None
        except Exception:  # damage to a zip directory can raise errors of any kind
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
        if origin == DETECTRON2:  # converted files name their origin
            origin = _CONVERTED.get(checkpoint.get("__author__", ""), origin)
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
                f"MODEL.WEIGHTS: nothing in {self._path} fits the model. Its first tensors are "
                f"{_first_keys(in_file)}, those of the model are {_first_keys(own)}"
            )
        self.backbone_only = all(k.startswith("backbone.") for k in report.loaded)
        self.report = report
        self._log(report, origin)

    def _refuse_other_model(self, report: LoadReport) -> None:
        """Raise an error if a resumed run has another model than before."""
        shapes = [f"{k} {list(a)} -> {list(b)}" for k, (a, b) in report.resized.items()]
        changes = [*shapes, *(f"{k} is no longer there" for k in report.skipped)]
        changes += [f"{k} is new" for k in report.missing]
        if not changes:
            return
        settings = changed_settings(self.settings_before, self.settings, ("MODEL.",))
        tensors = f"{len(changes)} tensors of the model, such as {changes[0]}"
        what = f"{listed(settings)} ({tensors})" if settings else tensors
        raise UserError(
            f"--resume cannot continue from {self._path} with another model: {what}. Undo the "
            "change, or start a new run with these weights as MODEL.WEIGHTS"
        )

    def _compare_classes(self, theirs: List[str]) -> None:
        # mmdetection 1.x uses underscores, such as in traffic_light.
        plain = [[name.replace("_", " ") for name in names] for names in (theirs, self.class_names)]
        if not theirs or not self.class_names or plain[0] == plain[1]:
            return
        text = f"{self._path} has the classes {theirs}, but the data have {self.class_names}"
        if self._resuming or self.require_classes:
            raise UserError(f"{text}. They must be the same, in the same order")
        if len(theirs) == len(self.class_names):  # otherwise the new layers are reported below
            logger.warning(f"{text}. The class layers are kept, because the number is the same")

    def _log(self, report: LoadReport, origin: str) -> None:
        # Training writes the debug messages to weights.txt.
        logger.debug(f"Tensors of the weights:\n{report.details()}")
        if report.is_complete() and origin == DETECTRON2:
            logger.info(f"All {len(report.loaded)} tensors of {self._path} were loaded")
            return
        logger.info(f"Weights of {self._path} ({origin}):\n{report.table()}")
        for note in report.notes():
            # If only a backbone is loaded, it is expected that the other layers are not.
            logger.log(logging.DEBUG if self.backbone_only else logging.WARNING, note)
        body = [k for k in (*report.missing, *report.resized) if "bottom_up." in k]
        body += [k for k in report.skipped if "bottom_up." in k]
        body = [k for k in body if not k.endswith("num_batches_tracked")]
        if self.backbone_only and body:
            logger.warning(
                f"The weights are of another backbone than the model's: {len(body)} tensors of one "
                f"have no counterpart in the other, such as {body[0]}"
            )
        for setting in unfit_settings(self.model, origin):
            logger.warning(f"The config does not fit the published weights ({origin}): {setting}")


def load_trained(checkpointer: LibraCheckpointer, weights: str, resume: bool = False) -> None:
    """
    Load a trained detector into the checkpointer's model.

    Args:
        weights: `MODEL.WEIGHTS`.
        resume: whether to load the last checkpoint of the checkpointer's folder instead, if there
            is one.

    Raises:
        UserError: there are no weights, they are those of a classifier, or they leave a part of
            the model untrained.
    """
    checkpointer.resume_or_load(weights, resume=resume)
    from_run = resume and checkpointer.has_checkpoint()
    if checkpointer.backbone_only or not (from_run or weights):
        raise UserError(
            f"MODEL.WEIGHTS must be a trained detector, got {weights!r}. Set it to a checkpoint, "
            "such as OUTPUT_DIR/model_final.pth"
        )
    if checkpointer.report is not None and checkpointer.report.untrained():
        first = checkpointer.report.untrained()[0]
        raise UserError(
            f"{weights} lacks tensors of this model, such as {first}. Train the model first, or "
            "use the config and the classes of the checkpoint"
        )


def _verify_checksums(path: str) -> None:
    """
    Like `ZipFile.testzip`, read all members to verify their checksums, but show the progress.

    Raises:
        zipfile.BadZipFile: a checksum is wrong. Damage may raise other exceptions as well.
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
    """Content of a checkpoint, whose tensors are not read yet; None if it is not a checkpoint."""
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content if isinstance(content, dict) and "model" in content else None


def _iteration(path: str) -> int:
    """Iteration after which a checkpoint was saved; -1 if training cannot be resumed from it."""
    try:
        content = _content(path) or {}
        return int(content["iteration"]) if "trainer" in content else -1
    except Exception:  # a damaged file can raise errors of any kind
        return -1


def _first_keys(shapes: Dict[str, tuple], count: int = 3) -> str:
    return ", ".join(f"{k} {list(v)}" for k, v in list(shapes.items())[:count])
