"""The cache folder for files that can be downloaded, drawn or converted again."""

import os
import stat
import tempfile
from pathlib import Path

from ..errors import UserError


def cache_folder() -> Path:
    """
    Return `$LIBRA_D2_CACHE` or `~/.cache/libra_d2`. For a user without a home folder, as in a
    container that runs under a numeric id, return a private temporary folder. The folder may not
    exist yet.
    """
    named = os.environ.get("LIBRA_D2_CACHE")
    if named:
        # Unlike Path.expanduser, this leaves a ~ that leads nowhere as it is.
        return Path(os.path.expanduser(named))
    home = os.path.expanduser("~")
    if os.path.isabs(home) and os.path.isdir(home) and (home != "/" or os.access(home, os.W_OK)):
        return Path(home, ".cache", "libra_d2")
    return _temporary()


def _temporary() -> Path:
    return Path(tempfile.gettempdir(), f"libra_d2-{os.getuid() if os.name == 'posix' else 'user'}")


def make_cache_folder(*parts: str) -> Path:
    """
    Create a folder in the cache, if necessary, and return its path.

    Raises:
        UserError: the folder cannot be created, or it belongs to another user.
    """
    root = cache_folder()
    folder = root.joinpath(*parts)
    try:
        if root == _temporary() and os.name == "posix":  # anybody may create a folder there
            os.makedirs(root, mode=0o700, exist_ok=True)
            status = os.lstat(root)
            if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
                raise UserError(
                    f"the cache folder {root} belongs to another user. Set LIBRA_D2_CACHE to a "
                    "folder of your own"
                )
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(
            f"the cache folder {folder} cannot be created ({e.strerror or e}). Set LIBRA_D2_CACHE "
            "to a folder that you can write to"
        ) from None
    return folder
