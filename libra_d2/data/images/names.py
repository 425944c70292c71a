"""Find images whose names in an annotation file may come from another machine."""

import logging
import os
import re
from typing import Dict, Iterable, Iterator, List, Sequence, Tuple
from urllib.parse import unquote

from ...utils.local_paths import is_url
from ...utils.messages import printable
from ...utils.progress import progress
from .packed_store import PREFIX as PACKED
from .reader import is_image_file


def candidate_paths(name: str, root: str) -> Iterator[str]:
    """
    Yield the paths that a name may stand for.

    The first is the name as it is, relative to `root`. The others are its trailing parts, longest
    first, in `root`. Backslashes, drive letters, URLs and percent-encoding are understood. Nothing
    is downloaded.
    """
    if not is_url(name):
        yield os.path.join(root, name)
    for parts in dict.fromkeys(_forms(name)):
        for i in range(len(parts)):
            yield os.path.join(root, *parts[i:])


def locate_images(names: Iterable[str], root: str) -> Dict[str, str]:
    """
    Find the images of a list of names. Training, evaluation and all commands use this function.

    Args:
        names: names as in a file that may come from another machine.
        root: folder that they are relative to.

    Returns:
        Name -> path. If no file is found, or several names lead to the same file, the path is that
        of the name as it is.
    """
    found = {name: os.path.join(root, name) for name in names}
    if root.startswith(PACKED):
        return found
    moved: Dict[str, List[str]] = {}
    direct = set()
    for name, path in progress(found.items(), "Looking for images"):
        if is_image_file(path):
            direct.add(path)
            continue
        other = next((p for p in candidate_paths(name, root) if is_image_file(p)), None)
        if other is not None:
            moved.setdefault(other, []).append(name)
    for path, of_path in moved.items():
        if len(of_path) == 1 and path not in direct:
            found[of_path[0]] = path
    return found


def moved_images(found: Dict[str, str], root: str) -> List[Tuple[str, str]]:
    """Return (name, path) of images that :func:`locate_images` found by the end of their name."""
    return [(n, p) for n, p in found.items() if p != os.path.join(root, n)]


def say_moved(
    logger: logging.Logger, what: str, moved: Sequence[Tuple[str, str]], total: int
) -> None:
    """Warn that images listed in the file `what` were found by the end of their name."""
    if moved:
        name, path = moved[0]
        logger.warning(
            f"{what}: {len(moved)} of {total} images are not at the path that their name gives, "
            f"and were found by the end of the name. The first is {printable(name)}, found at "
            f"{printable(path)}"
        )


def places_looked_at(path: str, root: str, limit: int = 3) -> str:
    """Return, for a message, the first paths at which a missing image was looked for."""
    inside = root and path.startswith(os.path.join(root, ""))
    name = path[len(os.path.join(root, "")) :] if inside else path
    places = list(dict.fromkeys((path, *candidate_paths(name, root))))
    more = f" and {len(places) - limit} more places" if len(places) > limit else ""
    return ", ".join(map(printable, places[:limit])) + more


def _forms(name: str) -> List[Tuple[str, ...]]:
    path = name
    if is_url(name):
        path = re.split(r"[?#]", name.partition("://")[2])[0].partition("/")[2]
    texts = (path, unquote(path))
    return [
        tuple(p for p in re.split(r"[/\\]", text) if p not in ("", ".", "..") and p[1:] != ":")
        for text in texts
    ]
