"""
Checkpoint files of others, read so that nothing in them can run.

A pickle may name any function and have it called. `.pth` files go through torch's own unpickler
with `weights_only`; Detectron2's `.pkl` files through one that knows arrays and containers alone.
NumPy's own classes are not among what either may call: they trust a pickle with pointers.
"""

import codecs
import collections
import pickle
from typing import Any, Dict, Optional, Tuple

import numpy as np
import torch

from ..errors import UserError
from ..utils.progress import announced
from .file_bounds import check_file, refusal


class _DType:
    """
    Stands in for numpy.dtype, which believes what a pickle says of its flags and fields, and then
    takes bytes for pointers. Only numbers and texts are known here.
    """

    def __init__(self, code: Any, *_):
        if not isinstance(code, str) or np.dtype(code).kind not in "biufcSU":
            raise pickle.UnpicklingError(f"arrays of the type {code!r} are not let through")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for an array while a pickle is read; `array` is made from its bytes alone."""

    array: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else bytes(data)
        order = "F" if is_fortran else "C"
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order=order).copy(order)


class _NDArray:
    """Stands in for numpy.ndarray, the type: it is named in pickles, and never made by them."""

    def __new__(cls, *_):
        raise pickle.UnpicklingError("it makes arrays in another way than numpy writes them")


def _reconstruct(*_) -> _Array:
    return _Array()


def _scalar(dtype: _DType, data: Any) -> np.generic:
    data = data.encode("latin1") if isinstance(data, str) else bytes(data)
    return np.frombuffer(data, dtype.dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes. Any other codec is refused: some decompress."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the codec {encoding!r}")
    return codecs.encode(text, "latin1")


def _bytes(*args: Any) -> bytes:
    """A text in latin1, as protocol 2 writes it; of a number, as many bytes would be made."""
    if args[1:] not in ((), ("latin1",), ("latin-1",)) or any(isinstance(a, int) for a in args):
        raise pickle.UnpicklingError("bytes that are made in another way than by their content")
    return bytes(*args)


def _frombuffer(buffer: Any, dtype: _DType, shape: tuple, order: str) -> np.ndarray:
    """How protocol 5 writes arrays."""
    return np.frombuffer(bytes(buffer), dtype=dtype.dtype).reshape(shape, order=order).copy(order)


_NUMPY = {
    "numpy.ndarray": _NDArray,
    "numpy.dtype": _DType,
    # The module has been renamed by NumPy 2.
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
    In place of what stands in for arrays, the arrays. What is in several places is looked at once:
    lists of the same lists have no end otherwise.
    """
    if isinstance(content, _Array):
        return content.array
    if not isinstance(content, (dict, list, tuple)):
        return content
    done = {} if done is None else done
    if id(content) in done:
        return done[id(content)][1]
    done[id(content)] = (content, content)  # kept, so that its id stays its own
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


_STAND_INS = [
    *((stand_in, name) for name, stand_in in _NUMPY.items()),
    (_Array, f"{__name__}._Array"),
    (_LogEntry, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_LogEntry, "builtins.getattr"),  # names its methods; here it reads no attribute of anything
]


def load_pkl(path: str) -> Any:
    """
    What a `.pkl` file of Detectron2's model zoo holds: containers of arrays, numbers and strings.

    Raises:
        UserError: the file holds anything else, such as a call, or is no pickle. Nothing of it has
            run then.
    """
    check_file(path)
    try:
        with announced(f"Reading {path}"), open(path, "rb") as f:
            return _with_arrays(_ArrayUnpickler(f, encoding="latin1").load())
    except Exception as e:  # a damaged pickle raises whatever its bytes lead to
        raise _refusal(path, e) from e


def load_pth(path: str) -> Any:
    """
    What a `.pth` file holds: containers of tensors, arrays, numbers and strings, on the CPU.

    Raises:
        UserError: the file holds anything else, or is no checkpoint of torch. Nothing of it has
            run then.
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
        text = f"it asks for {name.split(' ')[0]}, and only tensors and containers are let through"
    elif text.startswith("Weights only load failed"):  # torch goes on to advise to trust the file
        text = "it is no checkpoint of torch, or a damaged one"
    reason = text.splitlines()[0] if text else repr(error)
    return refusal(path, reason)
