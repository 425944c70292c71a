"""Download weights to the cache folder, under names that the server cannot choose."""

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
TIMEOUT = 30  # seconds without any data
# A download that is slower than this on average is given up.
SLOWEST = 10_000  # bytes per second
GRACE = 60  # seconds before the average is checked
SUFFIXES = (".pth", ".pkl", ".pyth", ".pt", ".ckpt")
_BLOCK = 1 << 18


def downloaded(url: str, check: Callable[[str], None]) -> str:
    """
    Return the local path of a URL, and download the file the first time. The file is stored in
    `weights` of the cache folder. Its name consists of the host and a hash of the URL.

    Args:
        url: begins with `https://` or `http://`. For the latter a warning is logged.
        check: called with the path of the downloaded file. Raises UserError if the file must not be
            kept.

    Raises:
        UserError: see :func:`download`.
    """
    host, suffix = _host(url), _suffix(url)
    folder = make_cache_folder("weights")
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    path = str(folder / f"{host}-{digest[:32]}{suffix}")
    if not os.path.isfile(path):
        if url.lower().startswith("http://"):
            logger.warning(
                f"The connection to {printable(url)} is not encrypted, so others can change the "
                "file on its way"
            )
        download(url, path, check)
    return path


def cached(url: str) -> Optional[str]:
    """
    Return the path to which Detectron2 would download a URL, if that file exists. Machines without
    a network are often prepared with these files.
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
        raise UserError(f"a URL must not contain a user name, but the one to {host} does")
    if not re.fullmatch(r"[A-Za-z0-9.\-\[\]:]+", host, re.ASCII):
        raise UserError(f"{printable(url)} is not a URL: it has no valid host name")
    if not parts.path.strip("/"):
        raise UserError(f"{printable(url)} does not name a file")
    return re.sub(r"[^a-z0-9.\-]", "_", host.lower())[:100].strip(".") or "host"


def _suffix(url: str) -> str:
    """Return the suffix of the file, which decides how it is read."""
    suffix = os.path.splitext(urlsplit(url).path)[1].lower()
    return suffix if suffix in SUFFIXES else ".pth"


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old, new) == ("https", "http"):
            raise UserError(
                f"{printable(req.full_url)} redirects to {printable(newurl)}, but a redirect from "
                f"{old} must lead to {'http or https' if old == 'http' else 'https'}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for http and https only, which uses the proxies of the environment."""
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
    Download a file to `path`, completely or not at all, unless `path` exists.

    Args:
        check: see :func:`downloaded`.

    Raises:
        UserError: the file cannot be downloaded, is larger than `MAX_BYTES`, or fails the check.
    """
    remove_partial(os.path.dirname(path))
    try:
        with file_lock(path):  # only one of several processes downloads the file
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
        f"{printable(url)} must have at most {MAX_BYTES >> 20} MB to be downloaded, but is larger"
    )
