"""Writers of metrics like Detectron2's, which also continue the files of a resumed run."""

import json
import logging
import os
import re
from typing import Callable, Dict, List, TextIO

import torch
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)

from ..utils.system_errors import as_user_error

logger = logging.getLogger(__name__)

WRITE_PERIOD = 20  # iterations


# Prefixes of loss names that are shortened in the lines for people.
_SHORT = ((r"^loss_", ""), (r"^box_reg", "box"))


class TrainingLines(CommonMetricPrinter):
    """
    Logs a line for people: iteration, remaining time, losses, learning rate, seconds per iteration
    and memory. Like those of Detectron2's `CommonMetricPrinter`, the losses are medians over the
    window. `metrics.json` has all scalars in full precision.
    """

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter == self._max_iter:  # called once more after training
            return
        fields = [f"{storage.iter + 1}/{self._max_iter}"]
        eta = self._get_eta(storage)
        if eta:
            fields.append(f"eta {re.sub('^0:0?', '', eta)}")  # without the hours if they are 0
        losses = {k: self._median(storage, k) for k in storage.histories() if "loss" in k}
        if "total_loss" in losses:
            fields.append(f"total_loss {_number(losses.pop('total_loss'))}")
        own = {k: v for k, v in losses.items() if "/" not in k}  # without the validation losses
        fields += [f"{short_name(k)} {_number(v)}" for k, v in own.items()]
        metrics = [k for k in storage.histories() if "[metric]" in k]
        fields += [f"{k} {_number(self._median(storage, k))}" for k in metrics]
        fields += self._costs(storage)
        self.logger.info("  ".join(fields), extra={"fields": fields})

    def _median(self, storage: EventStorage, name: str) -> float:
        return storage.history(name).median(storage.count_samples(name, self._window_size))

    def _costs(self, storage: EventStorage) -> List[str]:
        known = storage.histories()
        ret = []
        if "lr" in known:
            ret.append(f"lr {known['lr'].latest():.3g}")
        if "time" in known:
            seconds = known["time"].global_avg()
            ret.append(f"{seconds:.2f} s/it")
            waiting = known["data_time"].latest() if "data_time" in known else 0.0
            if waiting > 0.1 * seconds:  # otherwise loading data is fast enough
                ret.append(f"data {waiting:.2f} s")
        if torch.cuda.is_available():
            ret.append(f"{torch.cuda.max_memory_allocated() / 1024**3:.1f} GiB")
        return ret


def short_name(name: str) -> str:
    """
    Shorten the name of a loss.

    Example:
        >>> [short_name(n) for n in ("loss_box_reg", "loss_rpn_cls", "loss_cls_stage1")]
        ['box', 'rpn_cls', 'cls_1']
    """
    for pattern, replacement in _SHORT:
        name = re.sub(pattern, replacement, name) or name
    return re.sub(r"_stage(\d+)$", r"_\1", name)


def _number(value: float) -> str:
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"


class MetricsFile(JSONWriter):
    """
    Writes `metrics.json`. When a run is resumed, the lines of later iterations, which the run will
    write again, are removed.
    """

    _last_write: int  # iteration
    _file_handle: TextIO

    def __init__(self, json_file: str, window_size: int = 20):
        super().__init__(json_file, window_size)
        self.path = json_file

    def write(self) -> None:
        """Write the new scalars like Detectron2 does, but with one line per iteration, in order."""
        records: Dict[int, Dict[str, float]] = {}
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                records.setdefault(iteration, {"iteration": iteration})[name] = value
        lines = [json.dumps(records[i], sort_keys=True) + "\n" for i in sorted(records)]
        try:
            append("".join(lines).encode(), self.path)
        except OSError as e:
            _warn(as_user_error(e, self.path) or e, "the next write retries these iterations")
            return
        self._last_write = max(records, default=self._last_write)

    def resume_after(self, iteration: int) -> None:
        self._last_write = cut_metrics(self.path, iteration)

    def start_over(self) -> None:
        """Rename the file of an earlier run to `metrics_old.json`, and start a new one."""
        if os.path.getsize(self.path):
            self._file_handle.close()
            os.replace(self.path, os.path.join(os.path.dirname(self.path), "metrics_old.json"))
            self._file_handle = open(self.path, "a", encoding="utf-8")  # noqa: SIM115


def append(content: bytes, path: str) -> None:
    """
    Append to a file and flush it to the disk. On failure, the file is as it was before.

    Raises:
        OSError: the content could not be written.
    """
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(file).st_size
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def _warn(error: Exception, consequence: str) -> None:
    logger.warning(f"{error}. Training continues; {consequence}")


class TensorBoardWriter(TensorboardXWriter):
    """
    Writes scalars for TensorBoard like Detectron2's writer. In addition, it hides the scalars that
    a resumed run will write again, and if the file cannot be written, training continues without
    it.
    """

    _has_failed = False

    def write(self) -> None:
        self._try(super().write)
        if self._has_failed:  # free what Detectron2's writer would have freed
            get_event_storage().clear_images()
            get_event_storage().clear_histograms()

    def close(self) -> None:
        self._try(super().close)

    def _try(self, action: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            action()
        except OSError as e:
            folder = self._writer_args["log_dir"]
            _warn(as_user_error(e, folder) or e, "TensorBoard will not show the rest of this run")
            self._has_failed = True

    def resume_after(self, iteration: int) -> None:
        self._last_write = (iteration + 1) // WRITE_PERIOD * WRITE_PERIOD - 1
        self._writer_args["purge_step"] = self._last_write + 1

    def start_over(self) -> None:
        self._writer_args["purge_step"] = 0


def cut_metrics(path: str, iteration: int) -> int:
    """
    Truncate a `metrics.json` before the first line that is incomplete or of a later iteration.

    Returns:
        The last iteration that is left; -1 if none is.
    """
    last = -1
    with open(path, "rb") as f:
        end = 0
        for line in f:
            try:
                written = json.loads(line)["iteration"]
            except (ValueError, KeyError, TypeError, RecursionError):
                break
            if type(written) is not int or written > iteration:
                break
            last = max(last, written)
            end += len(line)
    os.truncate(path, end)
    return last
