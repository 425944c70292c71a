"""
Find the file that `MODEL.WEIGHTS` names, and download it if the setting is a URL.

No other setting may be a URL.
"""

import os
import posixpath
import re
from typing import Callable, Dict, NamedTuple
from urllib.parse import urlsplit

from detectron2.checkpoint.catalog import ModelCatalog

from ..config.checks import check_weights_url
from ..errors import UserError
from ..utils.local_paths import is_url, local_path
from ..utils.messages import printable
from .download import cached, downloaded
from .timm_weights import timm_weights_file
from .torchvision_weights import torchvision_weights_file, verify_hash_in_name

_HEURISTICS = "?matching_heuristics=True"
_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*(/[A-Za-z0-9][A-Za-z0-9_.\-]*)*", re.ASCII)


class WeightsName(NamedTuple):
    """
    The parts of `<file>#<part>?matching_heuristics=True`. All but the file are optional.

    Attributes:
        file: a path or a URL.
        part: key of the weights in the file, such as "model_ema"; "" for "model" or "state_dict".
        matching_heuristics: whether tensors are matched by the suffixes of their names, like those
            of the backbones in Detectron2's model zoo.
    """

    file: str
    part: str = ""
    matching_heuristics: bool = False


def parse_weights(name: str) -> WeightsName:
    """
    Split `MODEL.WEIGHTS` into its parts.

    Args:
        name: `MODEL.WEIGHTS`. If a file with a `#` in its name exists, the `#` belongs to the name.

    Raises:
        UserError: it is a URL with an unknown scheme, or contains a NUL character.

    Example:
        >>> parse_weights("https://host/model.pth#model_ema")
        WeightsName(file='https://host/model.pth', part='model_ema', matching_heuristics=False)
    """
    heuristics = name.endswith(_HEURISTICS)
    file, part = name.removesuffix(_HEURISTICS), ""
    if is_url(file):
        messages = check_weights_url(name)
        if messages:
            raise UserError(messages[0])
        file, _, part = file.strip().partition("#")
    elif "#" in file and not os.path.exists(local_path(file, "MODEL.WEIGHTS")):
        file, _, part = file.rpartition("#")
    else:
        local_path(file, "MODEL.WEIGHTS")
    return WeightsName(file, part, heuristics)


def check_weights(name: str) -> None:
    """
    Check `MODEL.WEIGHTS` as far as possible before anything is loaded or downloaded.

    Raises:
        UserError: the file does not exist, or see :func:`parse_weights`.
    """
    file = parse_weights(name).file
    if not file or is_url(file):
        return
    if os.path.isdir(file):
        raise UserError(
            f"MODEL.WEIGHTS must be a file, got the folder {printable(file)}. Name a file in it, "
            f"such as {os.path.join(printable(file), 'model_final.pth')}"
        )
    if not os.path.exists(file):
        raise UserError(f"MODEL.WEIGHTS: checkpoint {printable(file)} does not exist")
    if not os.path.isfile(file):
        raise UserError(f"MODEL.WEIGHTS must be a regular file, got {printable(file)}")


def weights_file(name: WeightsName) -> str:
    """
    Return the path of a local file. A URL is downloaded first, unless the file is in the cache.

    Raises:
        UserError: the file does not exist or cannot be downloaded.
    """
    if not is_url(name.file):
        check_weights(name.file)
        return name.file
    scheme, _, rest = name.file.partition("://")
    try:
        return _FROM_SCHEME[scheme.lower()](rest, name.file)
    except UserError as e:
        text = str(e)
        prefix = "" if text.startswith("MODEL.WEIGHTS") else f"MODEL.WEIGHTS {name.file}: "
        raise UserError(f"{printable(prefix)}{text}") from None


def _from_zoo(rest: str, url: str) -> str:
    """Get a file of Detectron2's model zoo, which `detectron2://` or `catalog://` names."""
    if not _NAME.fullmatch(rest):
        raise UserError(
            f"MODEL.WEIGHTS {printable(url)}: {rest!r} is not the name of a file in Detectron2's "
            "model zoo"
        )
    if url.lower().startswith("catalog"):
        try:
            full = ModelCatalog.get(rest)
        except (RuntimeError, KeyError):
            raise UserError(
                f"MODEL.WEIGHTS {printable(url)}: Detectron2's ModelCatalog has no such name"
            ) from None
    else:
        full = _DETECTRON2 + rest
    return cached(full) or downloaded(full, check=lambda path: None)


def _from_torchvision(rest: str, url: str) -> str:
    return torchvision_weights_file(rest)


def _from_timm(rest: str, url: str) -> str:
    return timm_weights_file(rest)


def _from_web(rest: str, url: str) -> str:
    def check(path: str) -> None:
        verify_hash_in_name(path, posixpath.basename(urlsplit(url).path))

    return downloaded(url, check)


# One function for each of `choices.WEIGHTS_SCHEMES`.
_FROM_SCHEME: Dict[str, Callable[[str, str], str]] = {
    "https": _from_web,
    "http": _from_web,
    "detectron2": _from_zoo,
    "catalog": _from_zoo,
    "torchvision": _from_torchvision,
    "timm": _from_timm,
}
