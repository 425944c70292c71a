"""
Entry point of the `libra-d2` command.

It is not in the package, whose import loads Detectron2 and takes seconds. `--help`, `--version` and
mistakes in options are answered before that, and a missing Detectron2 is told in one line.
"""

import importlib.util
import sys


def main():
    spec = importlib.util.find_spec("libra_d2")
    package = importlib.util.module_from_spec(spec)
    sys.modules["libra_d2"] = package  # its modules can be imported; it has not run itself yet
    try:
        from libra_d2.cli.main import parse, run

        args = parse()
        spec.loader.exec_module(package)
        return run(args)
    except ImportError as e:
        sys.exit(f"libra-d2: {e}")
    except KeyboardInterrupt:
        sys.exit(130)
