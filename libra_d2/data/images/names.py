"""Where an image is, whose name in a file of annotations may come from another machine."""

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
    Paths that a name may mean: first as it is written, then its ends within `root`, the longest
    first. Backslashes, drives, URLs and percent-encoding are understood; nothing is downloaded.
    """
    if not is_url(name):
        yield os.path.join(root, name)
    for parts in dict.fromkeys(_forms(name)):
        for i in range(len(parts)):
            yield os.path.join(root, *parts[i:])


def locate_images(names: Iterable[str], root: str) -> Dict[str, str]:
    """
    Path of each name, as training, evaluation and all commands resolve it.

    Args:
        names: as they stand in a file, which may come from another machine.
        root: folder that they are relative to.

    Returns:
        Name -> path. A name that is found nowhere, or only at a place that another name means, too,
        keeps the path that it says.
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
    """(name, path) of the images of :func:`locate_images` that are not where their names say."""
    return [(n, p) for n, p in found.items() if p != os.path.join(root, n)]


def say_moved(
    logger: logging.Logger, what: str, moved: Sequence[Tuple[str, str]], total: int
) -> None:
    """Warn that images of `what`, a file, are found by the ends of their names."""
    if moved:
        name, path = moved[0]
        logger.warning(
            f"{what}: {len(moved)} of {total} images are not where their names say and are found "
            f"by the end of the name, the first is {printable(name)}: {printable(path)}"
        )


def places_looked_at(path: str, root: str, limit: int = 3) -> str:
    """The first places where an image was looked for in vain, for messages."""
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
