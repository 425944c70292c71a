"""Detectron2's writers of metrics, for a run that is resumed."""

import json
import os

from detectron2.utils.events import JSONWriter, TensorboardXWriter
from detectron2.utils.file_io import PathManager

WRITE_PERIOD = 20  # iterations


class MetricsFile(JSONWriter):
    """`metrics.json`: what was written after the iteration that is resumed from is cut off."""

    def __init__(self, json_file: str, window_size: int = 20):
        super().__init__(json_file, window_size)
        self.path = json_file

    def resume_after(self, iteration: int) -> None:
        self._last_write = cut_metrics(self.path, iteration)

    def start_anew(self) -> None:
        """Keep what another run has left there as `metrics_old.json`."""
        if os.path.getsize(self.path):
            self._file_handle.close()
            os.replace(self.path, os.path.join(os.path.dirname(self.path), "metrics_old.json"))
            self._file_handle = PathManager.open(self.path, "a")


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
            except (ValueError, KeyError, TypeError):
                break
            if written > iteration:
                break
            last = max(last, written)
            end += len(line)
    os.truncate(path, end)
    return last
