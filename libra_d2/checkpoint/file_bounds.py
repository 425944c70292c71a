"""
What is wrong with a checkpoint file, found out before it is read, and without more memory than its
size: files that are something else, cut off, or made to take more memory than they have bytes.
"""

import io
import os
import pickle
import pickletools
import stat
import zipfile
import zlib
from typing import Any, BinaryIO, Iterator, Tuple

from ..errors import UserError

# Of the largest sensible file: proposals for all images of COCO have 3 million.
_MAX_OPCODES = 20_000_000
_ZIP, _PICKLE, _TAR = b"PK\x03\x04", b"\x80", b"ustar"
# Their argument is a place in a table, which grows to it at once.
_PLACES = ("PUT", "BINPUT", "LONG_BINPUT")
# torch's format before 1.6 is a file of five pickles and then bytes.
_LEGACY_PICKLES = 5


def check_file(path: str) -> None:
    """
    Raises:
        UserError: the file cannot be a checkpoint, is cut off, or takes more memory than its size.
            The message says which.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise refusal(path, "it is not a regular file")
        with open(path, "rb") as f:
            start = f.read(512)
            reason = _foreign(start)
            if reason:
                raise refusal(path, reason)
            f.seek(0)
            if start.startswith(_ZIP):
                _check_zip(path, f, status.st_size)
            elif start.startswith(_PICKLE) or path.endswith(".pkl"):
                _check_pickles(path, f, status.st_size)
    except OSError as e:
        raise refusal(path, e.strerror or str(e)) from None


def _foreign(start: bytes) -> str:
    """Why a file that begins like this is no checkpoint; "": it may be one."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "the file is empty. Copy or download it again"
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file itself. `git lfs pull` gets the file"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page, not weights: the download gave an error page, or needs a log-in"
    if (start[8:9] == b"{" and b'"dtype"' in start) or start[8:].startswith(b'{"__metadata__"'):
        return (
            "it is a file of safetensors. Save its tensors by torch: "
            "torch.save(safetensors.torch.load_file(file), 'weights.pth')"
        )
    if start[257:262] == _TAR:
        return "torch's first format, a tar archive, is not read. Load it with torch and save it"
    return ""


def _check_zip(path: str, file: BinaryIO, size: int) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > size:
                reason = f"what it holds is larger than the file itself, {size} bytes"
                raise refusal(path, reason)
            for member in members:
                if member.filename.endswith(".pkl"):
                    content = io.BytesIO(archive.read(member))
                    _check_pickle(content, member.file_size, in_torch=True)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as e:
        reason = f"it is cut off or damaged ({e}). Copy or download it again"
        raise refusal(path, reason) from None
    except pickle.UnpicklingError as e:
        raise refusal(path, str(e)) from None


def _check_pickles(path: str, file: BinaryIO, size: int) -> None:
    in_torch = not path.endswith(".pkl")
    try:
        for _ in range(_LEGACY_PICKLES if in_torch else 1):
            _check_pickle(file, size, in_torch)
            if file.tell() >= size:
                return
    except pickle.UnpicklingError as e:
        raise refusal(path, str(e)) from None


def _check_pickle(file: BinaryIO, size: int, in_torch: bool) -> None:
    """
    Read the opcodes of one pickle, and build nothing.

    Raises:
        pickle.UnpicklingError: it would take more memory than its bytes can account for.
    """
    bounded = _Bounded(file, size)
    count = 0
    try:
        for opcode, value, position in _opcodes(bounded):
            count += 1
            place = opcode in _PLACES
            if (place and value > size) or (opcode == "FRAME" and value > size - position):
                raise pickle.UnpicklingError(
                    f"it is cut off or damaged, or made to take memory (at byte {position} it "
                    f"claims to go on to {value}, and it has {size} bytes)"
                )
            if opcode == "GLOBAL" and in_torch and value.split(" ")[-1] == "bytearray":
                raise pickle.UnpicklingError("it asks for builtins.bytearray, which no weights are")
            if count > _MAX_OPCODES:
                raise pickle.UnpicklingError(f"it has more than {_MAX_OPCODES} instructions")
    except pickle.UnpicklingError:
        raise
    except Exception as e:  # of whatever the bytes of a damaged pickle lead to
        reason = " ".join(str(e).split()) or type(e).__name__
        raise pickle.UnpicklingError(
            f"it is no checkpoint, or cut off or damaged ({reason[:120]})"
        ) from None


def _opcodes(file: "_Bounded") -> Iterator[Tuple[str, Any, int]]:
    """As pickletools.genops, which does not know that texts of Python 2 are bytes."""
    while True:
        position = file.tell()
        code = file.read(1)
        opcode = pickletools.code2op.get(code.decode("latin1")) if code else None
        if opcode is None:
            raise ValueError(f"byte {position} is no instruction" if code else "it has no end")
        if opcode.name == "STRING":
            value: Any = file.readline()
        else:
            value = opcode.arg.reader(file) if opcode.arg is not None else None
        yield opcode.name, value, position
        if opcode.name == "STOP":
            return


class _Bounded:
    """A file of which no more is asked for than it has: reading allocates what is asked for."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self.readline, self.tell = file.readline, file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._size - self._file.tell())))


def refusal(path: str, reason: str) -> UserError:
    return UserError(f"cannot read the checkpoint {path}: {reason}")
