"""
Entry point of the `libra-d2` command.

It is not part of the package, because importing the package loads Detectron2, which takes seconds.
The launcher handles `--help`, `--version` and mistakes in options before that, and it reports a
missing Detectron2 in one line. Commands that run an ONNX file do without it.
"""

import gc
import importlib.util
import sys


def main():
    spec = importlib.util.find_spec("libra_d2")
    package = importlib.util.module_from_spec(spec)
    # The submodules can now be imported although the package itself has not been executed.
    sys.modules["libra_d2"] = package
    try:
        from libra_d2.cli.main import needs_detectron2, parse, run

        args = parse()
        if needs_detectron2(args):
            # The modules of PyTorch and Detectron2 are kept until the end. To search them for
            # garbage while they are imported, and again at exit, takes more than a second.
            gc.disable()
            spec.loader.exec_module(package)
            gc.freeze()
            gc.enable()
        return run(args)
    except ImportError as e:
        sys.exit(f"libra-d2: {e}")
    except KeyboardInterrupt:
        sys.exit(130)
