"""Print the versions of this installation, and check that it works."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    """Return 0 if there are no problems, else 1."""
    from .diagnosis import diagnose

    return diagnose()
