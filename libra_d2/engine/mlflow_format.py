"""Convert the settings, metric names and URIs of a run to the form that MLflow accepts."""

import posixpath
import re
from pathlib import Path
from typing import Dict, Optional

from detectron2.config import CfgNode, get_cfg

from ..config import add_libra_config
from ..config.flattening import flat

# Number of characters of a parameter's value. Servers since MLflow 1.28 accept as many, newer ones
# more.
MAX_PARAM_LENGTH = 500


def settings(cfg: CfgNode) -> Dict[str, str]:
    """Return the settings that differ from the defaults, truncated to MLflow's maximum length."""
    defaults = get_cfg()
    add_libra_config(defaults)
    standard = flat(defaults)
    return {
        key: str(value)[:MAX_PARAM_LENGTH]
        for key, value in flat(cfg).items()
        if value != standard.get(key) and not key.startswith("MLFLOW.")
    }


def metric_name(name: str) -> str:
    """
    Replace the characters of a scalar's name that MLflow does not accept.

    Example:
        >>> metric_name("bbox/AP-a (b)")
        'bbox/AP-a _b_'
    """
    return posixpath.normpath(re.sub(r"[^\w.\- /]", "_", name)).lstrip("/.")


_SQLITE = "sqlite:///"


def artifact_folder(tracking_uri: str) -> Optional[str]:
    """
    Return the URI of the folder for files of runs: `mlruns` next to a SQLite database. For other
    stores, which choose the folder themselves, return None.
    """
    if not tracking_uri.startswith(_SQLITE):
        return None
    database = Path(tracking_uri[len(_SQLITE) :].partition("?")[0])
    return (database.absolute().parent / "mlruns").as_uri()


def is_local(artifact_uri: str) -> bool:
    """Whether a URI is a folder on this machine, such as `file:///tmp`, `/tmp` or `C:\\runs`."""
    scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9+.\-]+):", artifact_uri)
    return scheme is None or scheme[1].lower() == "file"


def without_password(uri: str) -> str:
    """
    Hide the user and the password of a URI in a text for the log.

    Example:
        >>> without_password("https://user:password@host")
        'https://***@host'
    """
    return re.sub(r"(?<=://)[^/@\s]*@", "***@", uri)
