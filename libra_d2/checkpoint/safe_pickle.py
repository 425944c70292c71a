"""
Read checkpoint files of other people without running code in them.

A pickle can call any function. `.pth` files are read by torch's unpickler with `weights_only`, and
Detectron2's `.pkl` files by an unpickler that allows only arrays and containers. Neither may call
NumPy's classes, which would use data of the pickle as pointers.
"""

import codecs
import collections
import pickle
from typing import Any, Dict, List, Literal, Optional, Tuple

import numpy as np
import torch

from ..errors import UserError
from ..utils.progress import announced
from .file_bounds import check_file, refusal


class _DType:
    """
    Substitute for numpy.dtype, which would accept flags and fields from a pickle and then use bytes
    as pointers. Only types of numbers and strings are allowed.
    """

    def __init__(self, code: Any, *_):
        if not isinstance(code, str) or np.dtype(code).kind not in "biufcSU":
            raise pickle.UnpicklingError(f"arrays of type {code!r} are not allowed")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Substitute for an array while a pickle is read. `array` is created only from its bytes."""

    array: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else bytes(data)
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order=order).copy(order)


class _NDArray:
    """Substitute for the type numpy.ndarray, which pickles name but never call."""

    def __new__(cls, *_):
        raise pickle.UnpicklingError("it creates arrays in another way than NumPy does")


def _reconstruct(*_) -> _Array:
    return _Array()


def _scalar(dtype: _DType, data: Any) -> np.generic:
    data = data.encode("latin1") if isinstance(data, str) else bytes(data)
    return np.frombuffer(data, dtype.dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Decode bytes of protocol 2. Other codecs are rejected, because some of them decompress."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes must be encoded in latin1, got {encoding!r}")
    return codecs.encode(text, "latin1")


def _bytes(*args: Any) -> bytes:
    """Bytes from a latin1 string, as in protocol 2. A number would allocate as many bytes."""
    if args[1:] not in ((), ("latin1",), ("latin-1",)) or any(isinstance(a, int) for a in args):
        raise pickle.UnpicklingError("it creates bytes in another way than from their content")
    return bytes(*args)


def _frombuffer(buffer: Any, dtype: _DType, shape: tuple, order: Literal["F", "C"]) -> np.ndarray:
    """Create an array of protocol 5."""
    return np.frombuffer(bytes(buffer), dtype=dtype.dtype).reshape(shape, order=order).copy(order)


_NUMPY = {
    "numpy.ndarray": _NDArray,
    "numpy.dtype": _DType,
    # NumPy 2 renamed the module.
    **{f"numpy.{m}.multiarray._reconstruct": _reconstruct for m in ("core", "_core")},
    **{f"numpy.{m}.multiarray.scalar": _scalar for m in ("core", "_core")},
    **{f"numpy.{m}.numeric._frombuffer": _frombuffer for m in ("core", "_core")},
}
_CONTAINERS = {
    "collections.OrderedDict": collections.OrderedDict,
    **{f"{m}.set": set for m in ("builtins", "__builtin__")},
    **{f"{m}.{t}": _bytes for m in ("builtins", "__builtin__") for t in ("bytes", "bytearray")},
    "_codecs.encode": _encode,
}
_KNOWN = {**_NUMPY, **_CONTAINERS}


def _with_arrays(content: Any, done: Optional[Dict[int, Tuple]] = None) -> Any:
    """
    Replace the substitutes by their arrays. Objects that occur several times are visited once,
    because nested lists of the same lists would take exponential time.
    """
    if isinstance(content, _Array):
        return content.array
    if not isinstance(content, (dict, list, tuple)):
        return content
    done = {} if done is None else done
    if id(content) in done:
        return done[id(content)][1]
    done[id(content)] = (content, content)  # keep the object, so that its id is not reused
    if isinstance(content, dict):
        for key, value in content.items():
            content[key] = _with_arrays(value, done)
    elif isinstance(content, list):
        content[:] = [_with_arrays(value, done) for value in content]
    elif type(content) is tuple:
        done[id(content)] = (content, tuple(_with_arrays(value, done) for value in content))
    return done[id(content)][1]


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, but only arrays and containers are allowed"
            ) from None


class _LogEntry:
    """
    Substitute for the objects of the training logs in checkpoints of mmdetection 3.x. It ignores
    all arguments and state.
    """

    def __new__(cls, *args):
        return super().__new__(cls)

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


_STAND_INS: List[Any] = [
    *((stand_in, name) for name, stand_in in _NUMPY.items()),
    (_Array, f"{__name__}._Array"),
    (_LogEntry, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_LogEntry, "builtins.getattr"),  # pickles get methods by it; this does not access attributes
]


def load_pkl(path: str) -> Any:
    """
    Read a `.pkl` file of Detectron2's model zoo: containers of arrays, numbers and strings.

    Raises:
        UserError: the file has other content, such as a call, or is not a pickle. No code in it has
            been run.
    """
    check_file(path)
    try:
        with announced(f"Reading {path}"), open(path, "rb") as f:
            return _with_arrays(_ArrayUnpickler(f, encoding="latin1").load())
    except Exception as e:  # a damaged pickle can raise errors of any kind
        raise _refusal(path, e) from e


def load_pth(path: str) -> Any:
    """
    Read a `.pth` file to the CPU: containers of tensors, arrays, numbers and strings.

    Raises:
        UserError: the file has other content or is not a checkpoint of torch. No code in it has
            been run.
    """
    check_file(path)
    with announced(f"Reading {path}"):
        return _load_pth(path)


def _load_pth(path: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        if "mmengine" not in str(e) and "numpy" not in str(e):
            raise _refusal(path, e) from e
    except Exception as e:
        raise _refusal(path, e) from e
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            return _with_arrays(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as e:
        raise _refusal(path, e) from e


def _refusal(path: str, error: Exception) -> UserError:
    text = str(error)
    _, found, name = text.partition("Unsupported global: GLOBAL ")
    if found:
        text = f"it asks for {name.split(' ')[0]}, but only tensors and containers are allowed"
    elif text.startswith("Weights only load failed"):  # torch then advises to trust the file
        text = "it is not a checkpoint of torch, or it is damaged"
    reason = text.splitlines()[0] if text else repr(error)
    return refusal(path, reason)
