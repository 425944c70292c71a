"""Detectron2's writers of metrics, for a run that is resumed."""

import json
import os
from typing import Dict

from detectron2.utils.events import JSONWriter, TensorboardXWriter, get_event_storage

WRITE_PERIOD = 20  # iterations


class MetricsFile(JSONWriter):
    """`metrics.json`: what was written after the iteration that is resumed from is cut off."""

    def __init__(self, json_file: str, window_size: int = 20):
        super().__init__(json_file, window_size)
        self.path = json_file

    def write(self) -> None:
        """As upstream, with one line for each iteration, in their order."""
        records: Dict[int, Dict[str, float]] = {}
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                records.setdefault(iteration, {"iteration": iteration})[name] = value
        for iteration in sorted(records):
            self._file_handle.write(json.dumps(records[iteration], sort_keys=True) + "\n")
            self._last_write = iteration
        self._file_handle.flush()
        os.fsync(self._file_handle.fileno())

    def resume_after(self, iteration: int) -> None:
        self._last_write = cut_metrics(self.path, iteration)

    def start_anew(self) -> None:
        """Keep what another run has left there as `metrics_old.json`."""
        if os.path.getsize(self.path):
            self._file_handle.close()
            os.replace(self.path, os.path.join(os.path.dirname(self.path), "metrics_old.json"))
            self._file_handle = open(self.path, "a", encoding="utf-8")  # noqa: SIM115


class TensorBoardWriter(TensorboardXWriter):
    """As upstream; TensorBoard does not show what came after the iteration resumed from."""

    def resume_after(self, iteration: int) -> None:
        self._last_write = (iteration + 1) // WRITE_PERIOD * WRITE_PERIOD - 1
        self._writer_args["purge_step"] = self._last_write + 1

    def start_anew(self) -> None:
        self._writer_args["purge_step"] = 0


def cut_metrics(path: str, iteration: int) -> int:
    """
    Cut a `metrics.json` off before the first line of a later iteration, or one that is not whole.

    Returns:
        The last iteration of those left; -1 if there are none.
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
