"""Where an image is, whose name in a file of annotations may come from another machine."""

import os
import re
from typing import Iterator, List, Tuple
from urllib.parse import unquote

from ..local_paths import is_url


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


def _forms(name: str) -> List[Tuple[str, ...]]:
    path = name
    if is_url(name):
        path = re.split(r"[?#]", name.partition("://")[2])[0].partition("/")[2]
    texts = (path, unquote(path))
    return [
        tuple(p for p in re.split(r"[/\\]", text) if p not in ("", ".", "..") and p[1:] != ":")
        for text in texts
    ]
