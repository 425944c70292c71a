"""
Entry point of the `libra-d2` command.

It is not in the package because importing that needs Detectron2, and a command whose user lacks
Detectron2 should say so in one line.
"""

import sys


def main():
    try:
        from libra_d2.cli.main import main
    except ImportError as e:
        sys.exit(f"libra-d2: {e}")
    except KeyboardInterrupt:
        sys.exit(130)
    return main()
