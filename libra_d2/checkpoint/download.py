"""Weights from a web server, kept in the cache folder under names that the server cannot choose."""

import hashlib
import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Callable, Optional
from urllib.parse import urlsplit

from iopath.common.file_io import file_lock

from ..errors import UserError
from ..utils.cache import make_cache_folder
from ..utils.files import remove_partial, replacing
from ..utils.messages import one_line, printable
from ..utils.progress import progress

logger = logging.getLogger(__name__)

MAX_BYTES = 8 << 30
TIMEOUT = 30  # seconds without a byte
# A server that trickles bytes is given up after a while.
SLOWEST = 10_000  # bytes a second, on average
GRACE = 60  # seconds before the average counts
SUFFIXES = (".pth", ".pkl", ".pyth", ".pt", ".ckpt")
_BLOCK = 1 << 18


def downloaded(url: str, check: Callable[[str], None]) -> str:
    """
    Path of the local file of a URL, which is downloaded the first time. It lies in `weights` of the
    cache folder, and is named by the host and by a hash of the URL.

    Args:
        url: `https://` or `http://`; of the latter a warning says that it is not protected.
        check: is called with the path of what was downloaded, and raises UserError if that must not
            be kept.

    Raises:
        UserError: as :func:`download`.
    """
    host, suffix = _host(url), _suffix(url)
    folder = make_cache_folder("weights")
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    path = str(folder / f"{host}-{digest[:32]}{suffix}")
    if not os.path.isfile(path):
        if url.lower().startswith("http://"):
            logger.warning(
                f"{printable(url)} is not encrypted, so that it can be changed on its way"
            )
        download(url, path, check)
    return path


def cached(url: str) -> Optional[str]:
    """
    Path that Detectron2's own downloads gave to a URL, if the file is there: machines without
    network have been filled this way.
    """
    from iopath.common.file_io import get_cache_dir

    root = os.path.realpath(get_cache_dir())
    path = os.path.realpath(os.path.join(root, urlsplit(url).path.lstrip("/")))
    inside = os.path.commonpath([root, path]) == root
    return path if inside and os.path.isfile(path) else None


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as e:
        raise UserError(f"{printable(url)} is not a URL: {one_line(e)}") from None
    if parts.username is not None:
        raise UserError(f"a URL with a user name, as this one to {host}, is not supported")
    if not re.fullmatch(r"[A-Za-z0-9.\-\[\]:]+", host, re.ASCII):
        raise UserError(f"{printable(url)} has no host name")
    if not parts.path.strip("/"):
        raise UserError(f"{printable(url)} has no file name")
    return re.sub(r"[^a-z0-9.\-]", "_", host.lower())[:100].strip(".") or "host"


def _suffix(url: str) -> str:
    """It tells how the file is read."""
    suffix = os.path.splitext(urlsplit(url).path)[1].lower()
    return suffix if suffix in SUFFIXES else ".pth"


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old, new) == ("https", "http"):
            raise UserError(
                f"{printable(req.full_url)} leads to {printable(newurl)}, which is "
                f"not followed from {old}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Knows http and https alone, with the proxies of the environment: no file:, no ftp:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "libra_d2")]
    return opener


def download(url: str, path: str, check: Callable[[str], None]) -> None:
    """
    Write the file of a URL to `path`, if it is not there; as a whole or not at all.

    Args:
        check: see :func:`downloaded`.

    Raises:
        UserError: it cannot be had, is larger than `MAX_BYTES`, or does not pass the check.
    """
    remove_partial(os.path.dirname(path))
    try:
        with file_lock(path):  # one of several processes downloads
            if not os.path.isfile(path):
                logger.info(f"Downloading {printable(url)} to {path}")
                _request(url, path, check)
    finally:
        with suppress(OSError):
            os.remove(f"{path}.lock")


def _request(url: str, path: str, check: Callable[[str], None]) -> None:
    partial = path
    try:
        with _opener().open(url, timeout=TIMEOUT) as response, replacing(path) as partial:
            _receive(response, url, partial)
            check(partial)
    except UserError as e:
        raise UserError(str(e).replace(partial, printable(url))) from None
    except (OSError, ValueError, http.client.HTTPException) as e:
        reason = getattr(e, "reason", None) or e
        reason = reason if isinstance(reason, BaseException) else Exception(str(reason))
        raise UserError(
            f"cannot download {printable(url)} ({_status(e)}{one_line(reason)}). Put the file at "
            f"{path}, or give its path as MODEL.WEIGHTS"
        ) from None


def _status(error: Exception) -> str:
    return f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""


def _receive(response: http.client.HTTPResponse, url: str, partial: str) -> None:
    length = response.headers.get("Content-Length")
    expected = int(length) if length and length.isdecimal() else None
    if expected is not None and expected > MAX_BYTES:
        raise UserError(_too_large(url))
    start, received = time.monotonic(), 0
    with (
        open(partial, "wb") as f,
        progress(desc="Downloading", total=expected, unit="B", unit_scale=True) as bar,
    ):
        while block := response.read1(_BLOCK):
            received += len(block)
            if received > MAX_BYTES:
                raise UserError(_too_large(url))
            seconds = time.monotonic() - start
            if seconds > GRACE and received < SLOWEST * seconds:
                raise OSError(f"only {received} bytes arrived in {seconds:.0f} s")
            f.write(block)
            bar.update(len(block))
    if expected is not None and received != expected:
        raise OSError(f"{received} of {expected} bytes arrived")
    if not received:
        raise OSError("the file is empty")


def _too_large(url: str) -> str:
    return (
        f"{printable(url)} is larger than {MAX_BYTES >> 20} MB, the largest size that is downloaded"
    )
