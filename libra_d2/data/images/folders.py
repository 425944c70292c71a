"""The images of a folder, and the files beside them that look like images but are not taken."""

import os
from dataclasses import dataclass
from typing import Iterator, Set, Tuple

from ...errors import UserError
from .formats import why_left_out


@dataclass(frozen=True)
class FolderImage:
    """`left_out`: why it is not taken though people would call it an image or a video, or ""."""

    path: str
    left_out: str = ""


def images_of_folder(
    folder: str, *, recursive: bool, follow_links: bool = False
) -> Iterator[FolderImage]:
    """
    Files whose names have the suffix of an image, sorted by name within their folder; and others
    that look like an image or a video, so that whoever lists the folder can name them.

    Args:
        recursive: also folders in the folder, each of them once.
        follow_links: also links to folders; one that leads to a folder that was already listed is
            left out, so that links in a circle end.

    Raises:
        UserError: a folder cannot be read.
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
        # A folder named like an image is named to be refused, not overlooked.
        for name in sorted(files + unlisted):
            path = os.path.join(root, name)
            reason = why_left_out(path)
            if reason is not None and (name in files or not reason):
                yield FolderImage(path, reason)
        if not recursive:
            break
