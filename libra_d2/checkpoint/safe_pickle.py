"""
Checkpoint files of others, read so that nothing in them can run.

A pickle may name any function and have it called. `.pth` files go through torch's own unpickler
with `weights_only`; Detectron2's `.pkl` files through one that knows arrays and containers alone.
"""

import codecs
import collections
import pickle
from typing import Any

import numpy as np
import torch

from ..errors import UserError

_reconstruct = np.empty(0).__reduce__()[0]
_scalar = np.float32(0).__reduce__()[0]


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes. Any other codec is refused: some decompress."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the codec {encoding!r}")
    return codecs.encode(text, "latin1")


def _frombuffer(buffer: Any, dtype: np.dtype, shape: tuple, order: str) -> np.ndarray:
    """How protocol 5 writes arrays."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


_ARRAYS_AND_CONTAINERS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{(m, t.__name__): t for m in ("builtins", "__builtin__") for t in (set, bytes, bytearray)},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    # The module has been renamed by NumPy 2.
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ARRAYS_AND_CONTAINERS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, and only arrays and containers are let through"
            ) from None


class _LogEntry:
    """
    Stands in for what the training logs inside an mmdetection 3.x checkpoint are made of. It takes
    any arguments and any state, and does nothing with them.
    """

    def __new__(cls, *args):
        return super().__new__(cls)

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


_MMENGINE_LOGS = [
    (_LogEntry, name)
    for name in (
        "mmengine.logging.history_buffer.HistoryBuffer",
        "builtins.getattr",  # names its methods; here it reads no attribute of anything
        "numpy.ndarray",
        "numpy.dtype",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
    )
]


def load_pkl(path: str) -> Any:
    """
    What a `.pkl` file of Detectron2's model zoo holds: containers of arrays, numbers and strings.

    Raises:
        UserError: the file holds anything else, such as a call, or is no pickle. Nothing of it has
            run then.
    """
    try:
        with open(path, "rb") as f:
            return _ArrayUnpickler(f, encoding="latin1").load()
    except Exception as e:  # a damaged pickle raises whatever its bytes lead to
        raise _refusal(path, e) from e


def load_pth(path: str) -> Any:
    """
    What a `.pth` file holds: containers of tensors, numbers and strings, on the CPU.

    Raises:
        UserError: the file holds anything else, or is no checkpoint of torch. Nothing of it has
            run then.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        if "mmengine" not in str(e) and "numpy" not in str(e):
            raise _refusal(path, e) from e
    except Exception as e:
        raise _refusal(path, e) from e
    try:
        with torch.serialization.safe_globals(_MMENGINE_LOGS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise _refusal(path, e) from e


def _refusal(path: str, error: Exception) -> UserError:
    text = str(error)
    _, found, name = text.partition("Unsupported global: GLOBAL ")
    if found:
        text = f"it asks for {name.split(' ')[0]}, and only tensors and containers are let through"
    reason = text.splitlines()[0] if text else repr(error)
    return UserError(f"cannot read the checkpoint {path}: {reason}")
