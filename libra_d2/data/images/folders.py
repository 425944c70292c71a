"""List the images of a folder, and the files in it that look like images but are not used."""

import os
from dataclasses import dataclass
from typing import Iterator, Set, Tuple

from ...errors import UserError
from .formats import why_left_out


@dataclass(frozen=True)
class FolderImage:
    """A file of a folder. `left_out` says why it is not used; "" for an image that is used."""

    path: str
    left_out: str = ""


def images_of_folder(
    folder: str, *, recursive: bool, follow_links: bool = False
) -> Iterator[FolderImage]:
    """
    Yield the images of a folder, sorted by name within each folder.

    Images are recognized by the suffix of their name. Other files that look like an image or a
    video are yielded with a reason in `left_out`, so that the caller can report them.

    Args:
        recursive: whether to include subfolders.
        follow_links: whether to follow links to folders. Each folder is listed only once, so that
            circular links end.

    Raises:
        UserError: A folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise UserError(f"folder {error.filename} cannot be read: {error.strerror}")

    seen: Set[Tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, onerror=fail, followlinks=follow_links):
        if follow_links:
            status = os.stat(root)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
        folders.sort()
        listed = [] if recursive and follow_links else folders
        unlisted = [f for f in listed if not recursive or os.path.islink(os.path.join(root, f))]
        # A folder named like an image is yielded too. Reading it fails with a message.
        for name in sorted(files + unlisted):
            path = os.path.join(root, name)
            reason = why_left_out(path)
            if reason is not None and (name in files or not reason):
                yield FolderImage(path, reason)
        if not recursive:
            break
