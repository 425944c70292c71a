"""Train or evaluate a detector, like train_net.py but without a checkout of the repository."""

import argparse

from ..utils.arguments import add_train_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_train_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from ..engine import launch
    from ..planning.training import plan_if_asked

    launch(_main, args, prepare=plan_if_asked)


def _main(args: argparse.Namespace) -> None:
    from ..engine import LibraTrainer, setup

    cfg = setup(args)
    if args.eval_only:
        LibraTrainer.evaluate(cfg, resume=args.resume)
        return
    trainer = LibraTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()
