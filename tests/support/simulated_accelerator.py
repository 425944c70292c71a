"""
A simulated accelerator, with which a machine without a GPU can test code that is written for one.

A tensor on the device "simulated" keeps its numbers in a CPU tensor, where all operators run. What
differs is what CUDA makes different:

- An operator on tensors of different devices raises a `RuntimeError`.
- Whenever CUDA would let the host wait for the device, the wait is recorded, with the lines of
  Python that caused it.

Random numbers are those of the CPU, so a seed gives the same results on both devices. The
simulation has neither streams nor mixed precision. It counts a wait for each copy between the host
and the device, in both directions and also for `non_blocking`, and for each operator with a result
whose size, or which itself, the host must know.

PyTorch accepts one such device per process and cannot forget it, so only a process of its own may
call :func:`install`.
"""

import contextlib
import sys
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Dict, Iterator, List, Tuple

import torch
from torch.utils._pytree import tree_leaves, tree_map

NAME = "simulated"
KEY = "PrivateUse1"  # PyTorch's name for a device that it does not know

# Operators of which PyTorch does not say that the size of their result depends on values.
_ALSO_WAIT = {"torchvision::nms"}
# bincount reads the smallest and the largest value before it counts.
_WAITS_TWICE = {"aten::bincount"}
# These raise even if the CPU tensor is a scalar, which most other operators accept.
_NO_SCALARS = {"aten::cat", "aten::stack", "aten::index_select", "aten::gather", "aten::scatter"}
_COPIES = {"aten::copy_", "aten::_to_copy"}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


@dataclass(frozen=True)
class Wait:
    """
    An operator for which the host waited, and the lines of Python that led to it, innermost first,
    without those of PyTorch. A backward pass has no lines.
    """

    operator: str
    lines: Tuple[str, ...]

    @property
    def line(self) -> str:
        return self.lines[0] if self.lines else "backward pass"


class SimulatedTensor(torch.Tensor):
    """A tensor on the simulated device. `on_host` has its numbers."""

    on_host: torch.Tensor

    @staticmethod
    @torch.inference_mode(False)  # which views of parameters could not have
    def __new__(cls, on_host: torch.Tensor):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            on_host.size(),
            strides=on_host.stride(),
            storage_offset=on_host.storage_offset(),
            dtype=on_host.dtype,
            device=torch.device(NAME, 0),
        )
        tensor.on_host = on_host
        return tensor

    def __repr__(self) -> str:
        return f"SimulatedTensor({self.on_host!r})"

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        self.on_host = value.on_host

    def __setitem__(self, index, value) -> None:
        # PyTorch keeps the number on the host for CUDA alone, where "x[0] = 1.0" waits.
        if isinstance(value, (bool, int, float)):
            value = torch.tensor(value, dtype=self.dtype)
        super().__setitem__(index, value)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **kwargs) -> Any:
        raise TypeError(f"can't convert a tensor on {self.device} to NumPy. Use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # where PyTorch has not divided operators into others
            result = operator.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return _run(operator, args, kwargs)


_waits: List[Wait] = []
_lock = threading.Lock()


@contextlib.contextmanager
def recorded_waits() -> Iterator[List[Wait]]:
    """Within, the waits of all threads are appended to the list that this returns."""
    found: List[Wait] = []
    global _waits
    before, _waits = _waits, found
    try:
        yield found
    finally:
        _waits = before


@lru_cache(maxsize=1)
def install() -> torch.device:
    """Make the device known to PyTorch, for the rest of the process."""
    # Imported here, because older releases of PyTorch lack it.
    from torch.utils import backend_registration as backends

    class Module(backends._DummyBackendModule):
        def get_amp_supported_dtype(self) -> List[torch.dtype]:
            return [torch.float16, torch.bfloat16]

    backends._setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    # These act where no argument is a SimulatedTensor yet, on any thread.
    all_operators, some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    all_operators.fallback(lambda operator, *args, **kwargs: _run(operator, args, kwargs), KEY)
    some.impl("_copy_from", _copy_from, KEY)  # of torch.tensor and new_tensor
    for name in ("arange", "arange.start", "arange.start_step"):  # PyTorch's own resizes a tensor
        operator = getattr(torch.ops.aten.arange, name.partition(".")[2] or "default")
        some.impl(name, lambda *args, _own=operator, **kwargs: _run(_own, args, kwargs), KEY)
    _libraries.extend([all_operators, some])
    return torch.device(NAME, 0)


_libraries: List[Any] = []  # a library that is freed takes its kernels with it


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False):
    return _run(torch.ops.aten.copy_.default, (target, source, non_blocking), {})


def _run(operator, args: Tuple, kwargs: Dict[str, Any]):
    name = operator.name().split(".")[0]
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    on_device = [x for x in tensors if isinstance(x, SimulatedTensor)]
    on_cpu = [x for x in tensors if not isinstance(x, SimulatedTensor)]
    _check_devices(name, args, on_device, on_cpu)

    target = kwargs.get("device")
    to_device = bool(on_device)
    if target is not None:
        to_device = torch.device(target).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu")}
    elif name == "aten::copy_":
        to_device = isinstance(args[0], SimulatedTensor)
    for _ in range(_number_of_waits(operator, name, args, on_device, on_cpu, to_device)):
        _record(operator)

    host = lambda x: x.on_host if isinstance(x, SimulatedTensor) else x
    result = operator(*tree_map(host, args), **tree_map(host, kwargs))
    wrapped = {id(x.on_host): x for x in on_device}  # of operators that work in place

    def wrap(x):
        if not isinstance(x, torch.Tensor) or not to_device:
            return x
        if id(x) not in wrapped:
            return SimulatedTensor(x)
        if wrapped[id(x)].shape != x.shape:  # as by unsqueeze_
            with torch._C._DisableTorchDispatch():
                wrapped[id(x)].as_strided_(x.size(), x.stride(), x.storage_offset())
        return wrapped[id(x)]

    return tree_map(wrap, result)


def _check_devices(name: str, args: Tuple, on_device: List, on_cpu: List) -> None:
    if not on_device or not on_cpu or name in _COPIES:
        return
    if name in _INDEXING:
        # CPU indices of a tensor on the device are copied there, but not the other way around.
        indices = tree_leaves(args[1])
        on_cpu = [x for x in on_cpu if not any(x is i for i in indices)]
        scalars = name != "aten::index"
    else:
        scalars = name not in _NO_SCALARS
    if any(x.dim() > 0 or not scalars for x in on_cpu):
        shapes = [
            f"{'simulated' if isinstance(x, SimulatedTensor) else 'cpu'} {tuple(x.shape)}"
            for x in [*on_device, *on_cpu]
        ]
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {name} got {', '.join(shapes)}"
        )


def _number_of_waits(
    operator, name: str, args: Tuple, on_device: List, on_cpu: List, to_device: bool
) -> int:
    if name in _COPIES:
        return int(bool(on_device) != to_device or bool(on_cpu and on_device))
    if not on_device:
        return 0
    if name in _INDEXING:
        indices = [x for x in args[1] if x is not None]
        of_host = sum(not isinstance(x, SimulatedTensor) for x in indices)
        masks = sum(x.dtype in (torch.bool, torch.uint8) for x in indices)
        if name != "aten::index" and not isinstance(args[2], SimulatedTensor):
            masks = 0  # to fill a mask with a number, nobody needs to know where it is set
        return of_host + masks
    tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
    if tags & set(operator.tags) or name in _ALSO_WAIT:
        return 2 if name in _WAITS_TWICE else 1
    return 0


def _record(operator) -> None:
    lines = []
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if "/torch/" not in file and file != __file__ and not file.startswith("<"):
            lines.append(f"{_short(file)}:{frame.f_lineno}")
        frame = frame.f_back
    with _lock:
        _waits.append(Wait(operator.name(), tuple(lines)))


def _short(file: str) -> str:
    for package in ("site-packages/", "/tests/", "/libra_d2/"):
        _, found, after = file.rpartition(package)
        if found:
            return after if package == "site-packages/" else package.strip("/") + "/" + after
    return file
