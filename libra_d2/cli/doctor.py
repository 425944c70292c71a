"""Print what this installation consists of, and whether it works."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    """0: all is well; 1: there are problems."""
    from .diagnosis import diagnose

    return diagnose()
