"""Tracking of a run with MLflow (https://mlflow.org), in addition to TensorBoard."""

import logging
import math
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, List

from detectron2.config import CfgNode
from detectron2.engine import HookBase

from ..utils.extras import import_extra
from ..utils.files import replacing
from .mlflow_format import artifact_folder, is_local, metric_name, settings, without_password
from .run_record import command_line, git_state, versions
from .writers import WRITE_PERIOD

logger = logging.getLogger(__name__)

RETRY_SECONDS = 300  # before a server that did not answer is tried again
MAX_PARAMS, MAX_METRICS = 100, 1000  # per request
ARTIFACTS = ("config.yaml", "metrics.json", "run.json", "*.png")
CHECKPOINTS = ("model_final.pth", "model_best.pth")


def import_mlflow() -> ModuleType:
    """
    Import MLflow with settings that suit training, unless the user has set others.

    Raises:
        UserError: MLflow, an extra of this package, is not installed.
    """
    # MLflow reads these when it is imported. It must not send usage data to its developers, nor
    # retry for minutes while training waits.
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),
    ):
        os.environ.setdefault(name, value)
    for needed in ("sqlalchemy", "alembic"):  # needed for a local SQLite store
        import_extra(needed, "mlflow", "runs with MLFLOW.ENABLED True")
    return import_extra("mlflow", "mlflow", "runs with MLFLOW.ENABLED True")


class MLflowTracker(HookBase):
    """
    Writes the settings, scalars and files of a run to MLflow. Only for the main process.

    A resumed run continues the same MLflow run. If the server fails, a warning is logged and
    training continues. The scalars are kept, and the server is tried again every few minutes and
    at the end.
    """

    def __init__(self, cfg: CfgNode):
        """
        Raises:
            UserError: MLflow is not installed.
        """
        self.mlflow = import_mlflow()
        self.cfg = cfg
        self.uri = cfg.MLFLOW.TRACKING_URI or self.mlflow.get_tracking_uri()
        self.shown_uri = without_password(self.uri)
        self.id_file = os.path.join(cfg.OUTPUT_DIR, "mlflow_run_id.txt")
        self.run_id = ""
        self._is_open = False
        self._pending: List[Any] = []  # metrics that are not sent yet
        self._written: Dict[str, int] = {}  # scalar -> last iteration that was collected
        self._retry_at = 0.0
        self._warned = False

    def state_dict(self) -> Dict[str, Any]:
        return {"run_id": self.run_id, "written": dict(self._written)} if self.run_id else {}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self.run_id = state["run_id"]
        self._written = dict(state["written"])

    def before_train(self) -> None:
        if not self.run_id and self.trainer.start_iter > 0 and os.path.isfile(self.id_file):
            self.run_id = Path(self.id_file).read_text(encoding="utf-8").strip()
        self._end_by_signal(True)
        source = "MLFLOW.TRACKING_URI" if self.cfg.MLFLOW.TRACKING_URI else "MLflow's own settings"
        logger.info(
            f"Tracking settings, scalars and files of this run in MLflow at {self.shown_uri} "
            f"({source})"
        )
        self._try(self._send)

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % WRITE_PERIOD == 0:
            self._collect()
            if time.monotonic() >= self._retry_at:
                self._try(self._send)

    def after_train(self) -> None:
        self._end_by_signal(False)
        self._collect()
        self._try(self._finish, self._status())

    # All code that talks to the server runs in here.

    def _try(self, action: Callable, *args) -> None:
        try:
            action(*args)
            self._retry_at = 0.0
        except Exception as e:  # MLflow, requests and the database have errors of their own
            self._retry_at = time.monotonic() + RETRY_SECONDS
            if not self._warned:
                message = without_password((str(e).splitlines() or [repr(e)])[0])[:300]
                logger.warning(
                    f"Cannot write to MLflow at {self.shown_uri} ({message}). Training continues; "
                    "its scalars are also in metrics.json"
                )
            self._warned = True

    def _send(self) -> None:
        if not self._is_open:
            self._open()
        while self._pending:
            self.client.log_batch(self.run_id, metrics=self._pending[:MAX_METRICS])
            del self._pending[:MAX_METRICS]

    def _open(self) -> None:
        self.client = self.mlflow.MlflowClient(self.uri)
        if self.run_id and not self._exists(self.run_id):
            logger.warning(
                f"MLflow at {self.shown_uri} has no run {self.run_id}. Starting a new one"
            )
            self.run_id = ""
        if self.run_id:
            self.client.update_run(self.run_id, status="RUNNING")
        else:
            folder = os.path.basename(os.path.abspath(self.cfg.OUTPUT_DIR))
            run = self.client.create_run(self._experiment_id(), run_name=folder)
            self.run_id = run.info.run_id
            with replacing(self.id_file) as partial:
                Path(partial).write_text(self.run_id + "\n", encoding="utf-8")
        self._describe()
        self._is_open = True
        logger.info(f"MLflow run {self.run_id} at {self.shown_uri}")

    def _exists(self, run_id: str) -> bool:
        try:
            return self.client.get_run(run_id).info.lifecycle_stage == "active"
        except self.mlflow.MlflowException as e:
            if e.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _experiment_id(self) -> str:
        name = self.cfg.MLFLOW.EXPERIMENT
        experiment = self.client.get_experiment_by_name(name)
        if experiment:
            return experiment.experiment_id
        return self.client.create_experiment(name, artifact_location=artifact_folder(self.uri))

    def _describe(self) -> None:
        """Send the settings as parameters, and the origin of the run as tags."""
        entities = self.mlflow.entities
        known = self.client.get_run(self.run_id).data.params
        params = settings(self.cfg)
        new = [entities.Param(k, v) for k, v in params.items() if k not in known]
        git = git_state() or {"commit": "none", "dirty": "none"}
        tags = {
            "mlflow.source.name": command_line(),
            "mlflow.source.git.commit": git["commit"],
            "git_dirty": str(git["dirty"]),
            **{f"version.{name}": number for name, number in versions().items()},
            # MLflow does not let the value of a parameter change.
            **{f"resumed.{k}": v for k, v in params.items() if known.get(k, v) != v},
        }
        for start in range(0, len(new), MAX_PARAMS):
            self.client.log_batch(self.run_id, params=new[start : start + MAX_PARAMS])
        self.client.log_batch(
            self.run_id, tags=[entities.RunTag(k, v[:5000]) for k, v in tags.items()]
        )

    def _finish(self, status: str) -> None:
        self._send()
        if not self._takes_files():
            self.client.set_terminated(self.run_id, status)
            return
        patterns = ARTIFACTS + (CHECKPOINTS if self.cfg.MLFLOW.LOG_CHECKPOINTS else ())
        try:
            for pattern in patterns:
                for path in sorted(Path(self.cfg.OUTPUT_DIR).glob(pattern)):
                    self.client.log_artifact(self.run_id, str(path))
        finally:  # files may go to another server, which can fail while this one works
            self.client.set_terminated(self.run_id, status)

    def _takes_files(self) -> bool:
        """
        Whether files can be copied to the place that the store names. A remote server that names a
        local folder is set up wrongly.
        """
        place = self.client.get_run(self.run_id).info.artifact_uri
        if artifact_folder(self.uri) is not None or not is_local(place):
            return True
        logger.warning(
            f"The files of the run are not copied to MLflow at {self.shown_uri}, because it names "
            f"{place}, a folder on this machine. Start the server with --serve-artifacts"
        )
        return False

    # The code below does not talk to the server.

    def _collect(self) -> None:
        """
        Collect the new scalars of the storage, smoothed like those of Detectron2's writers. Values
        that are not finite, such as the AP of a class without objects, are omitted, because MLflow
        would store other numbers in their place.
        """
        now = int(time.time() * 1000)
        for name, (value, iteration) in self.trainer.storage.latest_with_smoothing_hint().items():
            if iteration > self._written.get(name, -1) and math.isfinite(value):
                metric = self.mlflow.entities.Metric(metric_name(name), value, now, iteration)
                self._pending.append(metric)
                self._written[name] = iteration

    def _status(self) -> str:
        if isinstance(sys.exc_info()[1], Exception):
            return "FAILED"
        return "FINISHED" if self.trainer.iter >= self.trainer.max_iter else "KILLED"

    def _end_by_signal(self, on: bool) -> None:
        """Let SIGTERM end training through its hooks, unless other code handles the signal."""
        try:
            if on and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _exit)
            elif not on and signal.getsignal(signal.SIGTERM) is _exit:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        except ValueError:  # not in the main thread
            pass


def _exit(number: int, frame: Any) -> None:
    sys.exit(128 + number)
