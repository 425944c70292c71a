"""A run's settings and names in the form that MLflow takes."""

import posixpath
import re
from pathlib import Path
from typing import Dict, Optional

from detectron2.config import CfgNode, get_cfg

from ..config import add_libra_config
from ..config.flattening import flat

# Of a parameter's value: what servers since MLflow 1.28 take. Newer ones take more.
MAX_PARAM_LENGTH = 500


def settings(cfg: CfgNode) -> Dict[str, str]:
    """The settings that differ from the defaults, cut to the length that MLflow takes."""
    defaults = get_cfg()
    add_libra_config(defaults)
    standard = flat(defaults)
    return {
        key: str(value)[:MAX_PARAM_LENGTH]
        for key, value in flat(cfg).items()
        if value != standard.get(key) and not key.startswith("MLFLOW.")
    }


def metric_name(name: str) -> str:
    """A scalar's name with what MLflow does not take replaced, such as in "bbox/AP-a (b)"."""
    return posixpath.normpath(re.sub(r"[^\w.\- /]", "_", name)).lstrip("/.")


_SQLITE = "sqlite:///"


def artifact_folder(tracking_uri: str) -> Optional[str]:
    """Where the files of runs go, as a URI: `mlruns` beside a SQLite file, else None."""
    if not tracking_uri.startswith(_SQLITE):
        return None
    database = Path(tracking_uri[len(_SQLITE) :].partition("?")[0])
    return (database.absolute().parent / "mlruns").as_uri()


def is_local(artifact_uri: str) -> bool:
    """Whether it is a folder of this machine, such as `file:///tmp`, `/tmp` or `C:\\runs`."""
    scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9+.\-]+):", artifact_uri)
    return scheme is None or scheme[1].lower() == "file"


def without_password(uri: str) -> str:
    """A text for the log: `https://user:password@host` becomes `https://***@host`."""
    return re.sub(r"(?<=://)[^/@\s]*@", "***@", uri)
