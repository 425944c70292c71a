"""Import the user's own Python modules, such as heads, losses and data sets, named by `IMPORTS`."""

import importlib
import importlib.util
import os
import sys
import traceback
from typing import Any, Iterable, List, Sequence, Tuple

from ..errors import UserError
from ..utils.local_paths import local_path
from ..utils.messages import one_line, printable, shown

# A config next to one of these files belongs to a run or to weights, perhaps of somebody else.
_OF_RUNS = ("run.json", "last_checkpoint")
_WEIGHTS = (".pth", ".pkl", ".pyth", ".pt", ".ckpt", ".safetensors")


def absolute_modules(value: Any, folder: str, source: str) -> Tuple[str, ...]:
    """
    Make the paths of files in `IMPORTS` absolute.

    Args:
        value: the value of `IMPORTS`.
        folder: folder that the paths are relative to.
        source: origin of the value, named in error messages.

    Returns:
        Absolute paths of files, and names of modules as they are.

    Raises:
        UserError: the value is not a tuple of strings.
    """
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) and v for v in value):
        raise UserError(
            f"{source}: IMPORTS must be a tuple of files and modules, such as "
            f"\"('my_heads.py', 'my_package.heads')\", got {shown(value)}"
        )
    return tuple(
        os.path.abspath(os.path.join(folder, local_path(v, "IMPORTS"))) if _is_file(v) else v
        for v in value
    )


def _is_file(name: str) -> bool:
    return name.endswith(".py")


def lies_with_weights(files: Iterable[str]) -> bool:
    """Whether one of these configs is in the folder of a run or next to weights."""
    for file in files:
        try:
            names = os.listdir(os.path.dirname(file) or ".")
        except OSError:
            continue
        if any(name in _OF_RUNS or name.lower().endswith(_WEIGHTS) for name in names):
            return True
    return False


def refuse_untrusted(config_file: str, modules: Sequence[str]) -> None:
    """
    Refuse to import modules that a config from a run or next to weights names.

    Raises:
        UserError: always. The message says what would be run and how to allow it.
    """
    listed = ", ".join(printable(name) for name in modules)
    raise UserError(
        f"{printable(config_file)} belongs to a run or to weights, and its IMPORTS would run "
        f"Python code: {listed}. If you trust it, allow it with --trust (in Python: trust=True)"
    )


def import_modules(modules: Sequence[str]) -> None:
    """
    Import the files and modules that `IMPORTS` names, each once per process. Modules are searched
    for on Python's path and then in the working directory.

    Raises:
        UserError: a module is missing or its code fails. The message names the line of code.
    """
    for name in modules:
        try:
            if _is_file(name):
                _import_file(name)
            else:
                if os.getcwd() not in sys.path:
                    sys.path.append(os.getcwd())
                importlib.import_module(name)
        except UserError:
            raise
        except Exception as e:
            raise UserError(_why(name, e)) from e


def _import_file(path: str) -> None:
    if not os.path.isfile(path):
        raise UserError(f"IMPORTS: {printable(path)} does not exist")
    name = os.path.splitext(os.path.basename(path))[0]
    known = sys.modules.get(name)
    if known is not None:
        file = getattr(known, "__file__", None)
        if file and os.path.realpath(file) == os.path.realpath(path):
            return
        raise UserError(
            f"IMPORTS: {printable(path)} has the name of the module {name!r}, which is already "
            f"imported{f' from {file}' if file else ''}. Rename the file"
        )
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the file name ends with .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _why(name: str, error: Exception) -> str:
    frames: List[traceback.FrameSummary] = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    where = ""
    if isinstance(error, SyntaxError) and error.lineno:
        where = f" ({error.filename}, line {error.lineno})"
    elif frames:
        own = [f for f in frames if f.filename == name] or frames
        where = f" ({own[-1].filename}, line {own[-1].lineno})"
    return (
        f"IMPORTS: {printable(name)} cannot be imported: {type(error).__name__}: "
        f"{one_line(error)}{where}"
    )
