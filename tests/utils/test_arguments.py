"""The options of train_net.py and `libra-d2 train`."""

import argparse

from detectron2.engine import default_argument_parser as detectron2_parser

from libra_d2.utils.arguments import add_train_arguments


def options(parser):
    return {
        action.dest: (action.default, action.nargs, action.type)
        for action in parser._actions
        if action.dest != "help"
    }


def test_all_of_detectron2s_options_are_there():
    parser = argparse.ArgumentParser()
    add_train_arguments(parser)
    ours, theirs = options(parser), options(detectron2_parser())
    assert theirs.items() <= ours.items()
    assert ours.keys() - theirs.keys() == {"trust", "overwrite", "plan", "time", "any_orientation"}
