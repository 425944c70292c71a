"""
Verify packed data by its checksums.

This runs in a process of its own, because LMDB does not check the pages of a file. If pages of a
damaged or malicious file point outside of it, the system kills the process that reads them.
"""

import hashlib
import multiprocessing
import signal
import sys
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import Dict, List, Tuple, cast

from ...errors import UserError
from ...utils.json_files import parse_json
from ...utils.progress import progress
from ..images.packed_store import PackedStore, close_store, import_lmdb
from .packing import Packed, content_hash


def verify(path: str) -> Tuple[Packed, List[str]]:
    """
    Read a whole finished store and compare it with its checksums.

    Returns:
        What the store should contain, and one line for each problem.

    Raises:
        UserError: See :class:`PackedStore`.
    """
    import_lmdb()
    close_store(path)  # LMDB must not open a file twice in a process
    # A forked process does not have to import torch again.
    start = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    context = cast(
        SpawnContext, start
    )  # both have `Process`, but their base class does not declare it
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, path), daemon=True)
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        result = None
    except BaseException:  # Ctrl-C
        process.terminate()
        raise
    finally:
        process.join()
    if isinstance(result, Exception):
        raise result
    if result is None:
        code = process.exitcode or 0
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Packed(0, ""), [
            f"reading it failed with {name}, because its pages point outside of the file"
        ]
    return result


def _send_result(sender: Connection, path: str) -> None:
    try:
        sender.send(_verify(path))
    except UserError as e:
        sender.send(e)


def _verify(path: str) -> Tuple[Packed, List[str]]:
    lmdb = import_lmdb()
    store = PackedStore(path)
    expected, skipped = store.summary["sha256"], store.summary["skipped"]
    problems: List[str] = []
    digests: Dict[str, bytes] = {}
    try:
        content = store.annotations()
        data = parse_json(content, "the annotations")
        names = dict.fromkeys(image["file_name"] for image in data["images"])
        for name in progress(names, "Checking"):
            value = store.digest_and_content(name)
            if value is not None:
                digests[name], image = value
                if hashlib.sha256(image).digest() != digests[name]:
                    problems.append(f"image {name} is damaged")
            elif name not in skipped:
                problems.append(f"image {name} is missing")
        if not problems and content_hash(content, digests.values()) != expected:
            problems.append("the annotations or the checksums are damaged")
    except (lmdb.Error, ValueError, KeyError, TypeError, AttributeError, MemoryError) as e:
        problems.append(f"the annotations or the structure of the file are damaged ({e})")
    packed = Packed(store.summary["images"], expected, [(name, "") for name in skipped])
    return packed, problems
