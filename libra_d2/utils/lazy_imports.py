"""Packages whose modules are imported on first use."""

import importlib
from typing import Any, Callable, Mapping


def lazy_attributes(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """
    Return a package's `__getattr__`, which imports what is asked for on first use. Then importing
    one module of the package does not load what the others need, such as Detectron2.

    >>> lazy_attributes("libra_d2.utils", {"flag": "arguments"})("flag")("top_k")
    '--top-k'

    Args:
        package: `__name__` of the package.
        modules: the name of the module in the package, for each attribute.
    """

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return __getattr__
