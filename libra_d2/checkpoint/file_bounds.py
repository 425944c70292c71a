"""
Check a checkpoint file before it is loaded, without using more memory than its size.

The checks find files that are not checkpoints, that are cut off, or that would take far more memory
than their size when they are loaded.
"""

import mmap
import os
import pickle
import pickletools
import stat
import struct
import zipfile
import zlib
from typing import BinaryIO, Dict, Union

from ..errors import UserError
from ..utils.messages import printable

# Proposals for all images of COCO have 3 million.
_MAX_OPCODES = 20_000_000
_ZIP, _PICKLE, _TAR = b"PK\x03\x04", b"\x80", b"ustar"
_FOLDER = 0x10  # attribute of an entry in a zip file
# A file in torch's format before 1.6 consists of five pickles, followed by bytes.
_LEGACY_PICKLES = 5
_BYTEARRAY = "it asks for builtins.bytearray, which weights do not need"

# Size of the argument of a pickle instruction, by its code: a number of bytes, the width of a
# number that precedes the bytes and counts them, or a number of lines.
_UNSIGNED = {1: struct.Struct("<B"), 4: struct.Struct("<I"), 8: struct.Struct("<Q")}
_WIDTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_FIXED: Dict[int, int] = {}
_PREFIXED: Dict[int, int] = {}
_LINES: Dict[int, int] = {}
for _opcode in pickletools.opcodes:
    _size = _opcode.arg.n if _opcode.arg else 0
    if _size in _WIDTHS:
        _PREFIXED[ord(_opcode.code)] = _WIDTHS[_size]
    elif _size == pickletools.UP_TO_NEWLINE:
        _LINES[ord(_opcode.code)] = 2 if _opcode.name in ("GLOBAL", "INST") else 1
    else:
        _FIXED[ord(_opcode.code)] = _size
_PUT, _LONG_BINPUT, _GLOBAL = pickle.PUT[0], pickle.LONG_BINPUT[0], pickle.GLOBAL[0]
_FRAME, _STOP = pickle.FRAME[0], pickle.STOP[0]


def check_file(path: str) -> None:
    """
    Check that a file can be loaded as a checkpoint.

    Raises:
        UserError: the file cannot be a checkpoint, is cut off, or would take more memory than its
            size. The message says which.
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
    """Say why a file that begins with these bytes is not a checkpoint; "" if it may be one."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "the file is empty. Copy or download it again"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself. Run `git lfs pull` to get the file"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page, not weights: the download returned an error page or needs a login"
    if (start[8:9] == b"{" and b'"dtype"' in start) or start[8:].startswith(b'{"__metadata__"'):
        return (
            "it is a safetensors file, which is not supported. Convert it with "
            "torch.save(safetensors.torch.load_file(file), 'weights.pth')"
        )
    if start[257:262] == _TAR:
        return "it is a tar archive of an early torch. Load it with torch, and save it again"
    return ""


def _check_zip(path: str, file: BinaryIO, size: int) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > size:
                reason = f"its content would be larger than the file, which has {size} bytes"
                raise refusal(path, reason)
            for member in members:
                # torch would skip it as a folder and leave the memory of the tensor uninitialized.
                if member.external_attr & _FOLDER and not member.is_dir():
                    raise zipfile.BadZipFile(f"{printable(member.filename)} is marked as a folder")
                if member.filename.endswith(".pkl"):
                    _check_pickle(archive.read(member), 0, in_torch=True)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as e:
        reason = f"it is cut off or damaged ({e}). Copy or download it again"
        raise refusal(path, reason) from None
    except pickle.UnpicklingError as e:
        raise refusal(path, str(e)) from None


def _check_pickles(path: str, file: BinaryIO, size: int) -> None:
    in_torch, end = not path.endswith(".pkl"), 0
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for _ in range(_LEGACY_PICKLES if in_torch else 1):
                if end < size:
                    end = _check_pickle(content, end, in_torch)
    except pickle.UnpicklingError as e:
        raise refusal(path, str(e)) from None


def _check_pickle(content: Union[bytes, mmap.mmap], start: int, in_torch: bool) -> int:
    """
    Read the instructions of one pickle without executing them.

    Returns:
        The position of its end.

    Raises:
        pickle.UnpicklingError: the pickle has no end, or would take more memory than it has bytes.
    """
    position, size, count = start, len(content), 0
    while position < size:
        at, code = position, content[position]
        position += 1
        count += 1
        if count > _MAX_OPCODES:
            raise pickle.UnpicklingError(f"it has more than {_MAX_OPCODES} instructions")
        if code in _FIXED:
            position += _FIXED[code]
            if code == _LONG_BINPUT and position <= size:
                _check_place(_UNSIGNED[4].unpack_from(content, at + 1)[0], at, size)
        elif code in _PREFIXED:
            width = _PREFIXED[code]
            if position + width > size:
                break
            length = _UNSIGNED[width].unpack_from(content, position)[0]
            position += width + length
            if in_torch and content[position - length : position][:10] == b"bytearray":
                raise pickle.UnpicklingError(_BYTEARRAY)
        elif code in _LINES:
            for _ in range(_LINES[code]):
                position = content.find(b"\n", position) + 1 or size + 1
            line = content[at + 1 : position].split()
            if code == _PUT and position <= size:
                _check_place(int(line[0]) if line and line[0].isdigit() else size + 1, at, size)
            elif in_torch and code == _GLOBAL and line[1:] == [b"bytearray"]:
                raise pickle.UnpicklingError(_BYTEARRAY)
        else:
            raise pickle.UnpicklingError(
                f"it is not a checkpoint, or it is damaged (byte {at} is not a pickle instruction)"
            )
        if position > size:
            break
        if code == _FRAME:
            length = _UNSIGNED[8].unpack_from(content, at + 1)[0]
            if length > size - position:
                break
        if code == _STOP:
            return position
    raise pickle.UnpicklingError(
        "it is not a checkpoint, or it is cut off or damaged (the pickle has no end)"
    )


def _check_place(place: int, at: int, size: int) -> None:
    """Check an index into the memo, because unpicklers allocate the memo up to that index."""
    if place > size:
        raise pickle.UnpicklingError(
            f"it is damaged or malicious (byte {at} asks for a memo of {place} entries)"
        )


def refusal(path: str, reason: str) -> UserError:
    return UserError(f"cannot read the checkpoint {path}: {reason}")
