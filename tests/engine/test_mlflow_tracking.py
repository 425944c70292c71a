import math
import os
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from detectron2.utils.events import EventStorage

from libra_d2.engine import load_cfg
from libra_d2.engine import mlflow_tracking as tracking
from libra_d2.engine.mlflow_format import MAX_PARAM_LENGTH, is_local, metric_name, settings
from libra_d2.engine.mlflow_tracking import MLflowTracker
from libra_d2.errors import UserError

from ..support.coco_files import write_dataset
from ..support.project import ROOT
from ..support.train_net_runs import SMALL, on_data, train_net


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store that all tests of this module share, because creating its tables takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    client.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
    return uri, client


def options(uri, out, *more):
    return [
        *("MLFLOW.ENABLED", "True", "MLFLOW.TRACKING_URI", uri, "MLFLOW.EXPERIMENT", "tests"),
        *("OUTPUT_DIR", str(out), *map(str, more)),
    ]


def train(tracker, start_iter, max_iter, scalars=lambda i: {"total_loss": i}, error=None):
    """Call the hooks like Detectron2's training loop does."""
    trainer = SimpleNamespace(iter=start_iter, start_iter=start_iter, max_iter=max_iter)
    tracker.trainer = trainer
    with EventStorage(start_iter) as trainer.storage:
        try:
            tracker.before_train()
            for trainer.iter in range(start_iter, max_iter):
                trainer.storage.iter = trainer.iter
                trainer.storage.put_scalars(smoothing_hint=False, **scalars(trainer.iter))
                if error is not None and trainer.iter == max_iter - 5:
                    raise error
                tracker.after_step()
            trainer.iter += 1
        finally:
            trainer.storage.iter = trainer.iter
            tracker.after_train()


def tracker(uri, out, *more):
    out.mkdir(exist_ok=True)
    return MLflowTracker(load_cfg("configs/demo.yaml", options(uri, out, *more)))


def steps(client, run_id, name):
    return [(m.step, m.value) for m in client.get_metric_history(run_id, name)]


def artifacts(client, run_id):
    return sorted(f.path for f in client.list_artifacts(run_id))


def test_round_trip(store, tmp_path):
    uri, client = store
    out = tmp_path / "brief"
    hook = tracker(uri, out, "SOLVER.BASE_LR", 0.0125)
    for name in ("config.yaml", "metrics.json", "balance.png", "model_final.pth", "log.txt"):
        (out / name).write_text(name)

    def scalars(i):
        return {
            "total_loss": i / 2,
            "bbox/AP-big (cat)": 1.0,
            "nothing": math.nan,
            "much": math.inf,
        }

    train(hook, 0, 50, scalars)
    run = client.get_run((out / "mlflow_run_id.txt").read_text().strip())
    assert run.info.status == "FINISHED" and run.info.run_name == "brief"
    assert steps(client, run.info.run_id, "total_loss") == [(19, 9.5), (39, 19.5), (49, 24.5)]
    assert set(run.data.metrics) == {
        "total_loss",
        "bbox/AP-big _cat_",
    }  # nothing that is not finite
    assert run.data.params["SOLVER.BASE_LR"] == "0.0125"
    assert "SOLVER.MOMENTUM" not in run.data.params  # Detectron2's own value
    assert not [k for k in run.data.params if k.startswith("MLFLOW")]
    assert {"mlflow.source.git.commit", "git_dirty", "version.torch", "version.detectron2"} <= set(
        run.data.tags
    )
    assert run.data.tags["mlflow.source.name"].startswith(sys.executable)
    assert artifacts(client, run.info.run_id) == ["balance.png", "config.yaml", "metrics.json"]


def test_checkpoints_are_uploaded_only_if_asked(store, tmp_path):
    uri, client = store
    hook = tracker(uri, tmp_path, "MLFLOW.LOG_CHECKPOINTS", True)
    for name in ("model_final.pth", "model_0000009.pth"):
        (tmp_path / name).write_text(name)
    train(hook, 0, 1)
    assert artifacts(client, hook.run_id) == ["model_final.pth"]


def test_a_failed_upload_leaves_no_run_running(store, tmp_path, caplog, monkeypatch):
    uri, client = store
    hook = tracker(uri, tmp_path)
    (tmp_path / "config.yaml").write_text("")
    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", lambda *args: 1 / 0)
    train(hook, 0, 1)
    assert client.get_run(hook.run_id).info.status == "FINISHED"
    assert "Cannot write to MLflow" in caplog.text


@pytest.mark.parametrize("known_by", ["the checkpoint", "the file"])
def test_resume_goes_on_with_the_same_run(store, tmp_path, known_by):
    uri, client = store
    first = tracker(uri, tmp_path, "SOLVER.MAX_ITER", 40)
    train(first, 0, 40)
    second = tracker(uri, tmp_path, "SOLVER.MAX_ITER", 60, "SOLVER.BASE_LR", 0.0125)
    if known_by == "the checkpoint":
        (tmp_path / "mlflow_run_id.txt").unlink()
        second.load_state_dict(first.state_dict())
    train(second, 40, 60)
    assert second.run_id == first.run_id
    assert [step for step, _ in steps(client, first.run_id, "total_loss")] == [19, 39, 59]
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["SOLVER.MAX_ITER"] == "40"  # a parameter keeps its value
    assert run.data.tags["resumed.SOLVER.MAX_ITER"] == "60"


def test_a_run_from_the_start_is_a_new_one(store, tmp_path):
    uri, _ = store
    ids = []
    for _ in range(2):
        hook = tracker(uri, tmp_path)
        train(hook, 0, 1)
        ids.append(hook.run_id)
    assert ids[0] != ids[1]


def test_a_run_that_the_store_has_not(store, tmp_path, caplog):
    """
    If a resumed run is unknown, for example because it was on another server, a new one starts.
    """
    uri, client = store
    hook = tracker(uri, tmp_path)
    hook.load_state_dict({"run_id": "0" * 32, "written": {}})
    train(hook, 20, 40)
    assert ". Starting a new one" in caplog.text
    assert client.get_run(hook.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    "error,status",
    [(FloatingPointError("NaN"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_status_of_a_run_that_ended_early(store, tmp_path, error, status):
    uri, client = store
    hook = tracker(uri, tmp_path)
    with pytest.raises(type(error)):
        train(hook, 0, 30, error=error)
    assert client.get_run(hook.run_id).info.status == status
    assert [step for step, _ in steps(client, hook.run_id, "total_loss")] == [19, 25]


def test_sigterm_ends_a_run_as_killed(store, tmp_path):
    """Afterwards, the signal has its previous handler."""
    uri, client = store
    hook = tracker(uri, tmp_path)

    def scalars(i):
        if i == 25:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"total_loss": i}

    with pytest.raises(SystemExit) as e:
        train(hook, 0, 30, scalars)
    assert e.value.code == 128 + signal.SIGTERM
    assert client.get_run(hook.run_id).info.status == "KILLED"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_server_that_is_away_ends_no_training(tmp_path, caplog, monkeypatch):
    """There is one warning, and training hardly waits."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    hook = tracker(f"http://127.0.0.1:{port}", tmp_path)
    tried = []
    monkeypatch.setattr(hook, "_open", lambda: (tried.append(1), MLflowTracker._open(hook)))
    train(hook, 0, 200)
    assert len(tried) == 2  # at the start and at the end, not in every period
    assert caplog.text.count("Cannot write to MLflow") == 1
    assert hook.state_dict() == {}


def test_a_server_that_comes_back_gets_everything(store, tmp_path, monkeypatch):
    uri, client = store
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0)
    hook = tracker(uri, tmp_path)
    exists = mlflow.MlflowClient.log_batch

    def log_batch(self, *args, **kwargs):
        if 30 < hook.trainer.iter < 70:
            raise ConnectionError("away")
        return exists(self, *args, **kwargs)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
    train(hook, 0, 80)
    assert [step for step, _ in steps(client, hook.run_id, "total_loss")] == [19, 39, 59, 79]


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    for module in ("mlflow", "sqlalchemy"):
        with monkeypatch.context() as m:
            m.setitem(sys.modules, module, None)
            with pytest.raises(UserError, match=rf"need {module}: .*libra_d2\[mlflow\]"):
                tracker("", tmp_path)


def test_values_and_names_that_mlflow_takes():
    names = ",".join(f"'class {i}'" for i in range(200))
    cfg = load_cfg("configs/demo.yaml", ["DATASETS.CLASS_NAMES", f"({names})"])
    assert len(settings(cfg)["DATASETS.CLASS_NAMES"]) == MAX_PARAM_LENGTH
    for name in (
        "bbox/AP-a (b)",
        "[metric]x",
        "/a//b",
        "../a",
        "bbox/AP-日本",
        "a/../../b",
        "100%",
    ):
        mlflow.utils.validation._validate_metric_name(metric_name(name))


def test_train_net_is_tracked_and_resumed(store, tmp_path):
    """
    The command line logs a folder with a brief, scalars, pictures, and one run after a resume.
    """
    uri, client = store
    files = write_dataset(tmp_path / "data")
    command = [
        *on_data(files),
        *SMALL,
        *options(uri, tmp_path / "out", "OUTPUT_BRIEF", "idea", "BALANCE.PERIOD", 1),
    ]
    first = train_net(*command)
    assert first.returncode == 0, first.stderr[-2000:]
    second = train_net("--resume", *command, "SOLVER.MAX_ITER", "3")
    assert second.returncode == 0, second.stderr[-2000:]
    assert "Starting training from iteration 2" in second.stdout
    (folder,) = (tmp_path / "out").iterdir()
    run_id = (folder / "mlflow_run_id.txt").read_text().strip()
    run = client.get_run(run_id)
    assert run.info.run_name == folder.name and run.info.status == "FINISHED"
    logged = steps(client, run_id, "balance/hard_negatives/sampled")
    assert [step for step, _ in logged] == [1, 2]
    assert {"config.yaml", "metrics.json", "run.json", "balance.png", "loss_curve.png"} <= set(
        artifacts(client, run_id)
    )
    assert (Path(folder) / "balance.png").is_file()


def test_the_target_is_logged_at_start_without_its_password(tmp_path, caplog):
    with caplog.at_level("INFO"):
        train(tracker("http://me:secret@127.0.0.1:1", tmp_path / "run"), 0, 1)
    assert "of this run in MLflow at http://***@127.0.0.1:1 (MLFLOW.TRACKING_URI)" in caplog.text
    assert "secret" not in caplog.text.replace(str(tmp_path), "")


@pytest.mark.parametrize("relative", [True, False])
def test_files_of_a_new_experiment_lie_beside_the_data_base(tmp_path, monkeypatch, relative):
    config = str(ROOT / "configs/demo.yaml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    uri = "sqlite:///" + ("" if relative else f"{tmp_path}/") + "a folder/mlflow.db"
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text("x")
    train(MLflowTracker(load_cfg(config, options(uri, out))), 0, 1)
    (copied,) = tmp_path.rglob("artifacts/config.yaml")
    assert (tmp_path / "a folder/mlruns") in copied.parents


PLACES = ["file:///tmp/x", "FILE:/tmp/x", "/tmp/x", "C:\\x", " file:x", "..", ""]


def test_places_on_this_machine_are_told_from_others():
    assert all(map(is_local, PLACES))
    assert not any(map(is_local, ["mlflow-artifacts:/1", "s3://bucket/x", "https://host/x"]))


@pytest.mark.parametrize("place", PLACES[:3])
def test_a_server_cannot_name_a_folder_of_this_machine(store, tmp_path, monkeypatch, caplog, place):
    """Otherwise files would be written there with the rights of the user who trains."""
    uri, client = store
    hook = tracker(uri, tmp_path / "run")
    (tmp_path / "run/config.yaml").write_text("x")
    monkeypatch.setattr(tracking, "artifact_folder", lambda uri: None)  # as of a server
    get_run = mlflow.MlflowClient.get_run

    def named(self, run_id):
        run = get_run(self, run_id)
        run.info._artifact_uri = place
        return run

    monkeypatch.setattr(mlflow.MlflowClient, "get_run", named)
    written = []
    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", lambda *args: written.append(args))
    train(hook, 0, 1)
    assert not written and f"because it names {place}, a folder on this machine" in caplog.text
    assert client.get_run(hook.run_id).info.status == "FINISHED"
