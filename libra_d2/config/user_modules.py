"""Python modules of the user's own that a config names by `IMPORTS`: heads, losses, data sets."""

import importlib
import importlib.util
import os
import sys
import traceback
from typing import Any, Iterable, List, Sequence, Tuple

from ..errors import UserError
from ..utils.local_paths import local_path
from ..utils.messages import one_line, printable, shown

# What lies in the folder of a run, or beside weights that somebody has passed on.
_OF_RUNS = ("run.json", "last_checkpoint")
_WEIGHTS = (".pth", ".pkl", ".pyth", ".pt", ".ckpt", ".safetensors")


def absolute_modules(value: Any, folder: str, source: str) -> Tuple[str, ...]:
    """
    Args:
        value: of `IMPORTS`.
        folder: that paths of files are relative to.
        source: of the value, for messages.

    Returns:
        Names of modules as they are, and absolute paths of files.

    Raises:
        UserError: the value is no tuple of texts.
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
    """Whether one of these configs lies in the folder of a run, or beside weights."""
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
    Raises:
        UserError: always; it says what would run, and how to allow it.
    """
    listed = ", ".join(printable(name) for name in modules)
    raise UserError(
        f"{printable(config_file)} came with weights or a run, and its IMPORTS would run Python "
        f"code: {listed}. If you know what these files do, allow it with --trust (in Python: "
        "trust=True)"
    )


def import_modules(modules: Sequence[str]) -> None:
    """
    Import what `IMPORTS` names, each once in a process. Modules are found as Python does, and then
    in the working folder.

    Raises:
        UserError: one is missing, or its code fails; the line of its code is named.
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
            f"IMPORTS: {printable(path)} has the name of the module {name!r}, which is imported "
            f"already{f' from {file}' if file else ''}: give the file another name"
        )
    spec = importlib.util.spec_from_file_location(name, path)
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
