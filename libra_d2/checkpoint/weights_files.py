"""
What `MODEL.WEIGHTS` names: a file, or weights that are downloaded by a URL or a name.

It is the only setting that may be a URL, and these are all of the forms that it knows.
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
    `<file>#<part>?matching_heuristics=True`, of which the file alone must be there.

    file: a path, or a URL.
    part: key of the weights in the file, such as "model_ema"; "" for the usual one.
    matching_heuristics: whether names are matched by their ends, as in Detectron2's zoo.
    """

    file: str
    part: str = ""
    matching_heuristics: bool = False


def parse_weights(name: str) -> WeightsName:
    """
    Args:
        name: `MODEL.WEIGHTS`. A file that has a `#` in its own name is taken for what it is.

    Raises:
        UserError: it is a URL of a scheme that is not known, or holds a NUL character.
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
    Check what can be known of `MODEL.WEIGHTS` before anything is loaded or downloaded.

    Raises:
        UserError: there is no such file, or as :func:`parse_weights`.
    """
    file = parse_weights(name).file
    if not file or is_url(file):
        return
    if os.path.isdir(file):
        raise UserError(
            f"MODEL.WEIGHTS {printable(file)} is a folder: name a file in it, such as "
            f"{os.path.join(printable(file), 'model_final.pth')}"
        )
    if not os.path.exists(file):
        raise UserError(f"MODEL.WEIGHTS: checkpoint {printable(file)} does not exist")
    if not os.path.isfile(file):
        raise UserError(f"MODEL.WEIGHTS {printable(file)} is not a regular file")


def weights_file(name: WeightsName) -> str:
    """
    Path of the local file, which is downloaded if it is a URL and not in the cache.

    Raises:
        UserError: it cannot be had.
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
    """Detectron2's `detectron2://` and `catalog://`, which are files on one server."""
    if not _NAME.fullmatch(rest):
        raise UserError(
            f"MODEL.WEIGHTS {printable(url)}: {rest!r} is not a name in Detectron2's zoo"
        )
    if url.lower().startswith("catalog"):
        try:
            full = ModelCatalog.get(rest)
        except (RuntimeError, KeyError):
            raise UserError(
                f"MODEL.WEIGHTS {printable(url)}: Detectron2's catalog does not have it"
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


# One for each of `choices.WEIGHTS_SCHEMES`.
_FROM_SCHEME: Dict[str, Callable[[str, str], str]] = {
    "https": _from_web,
    "http": _from_web,
    "detectron2": _from_zoo,
    "catalog": _from_zoo,
    "torchvision": _from_torchvision,
    "timm": _from_timm,
}
