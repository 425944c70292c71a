"""Write the proposals of a trained RPN to files, for Fast R-CNN (configs/libra_fast_r50.yaml)."""

import argparse
import os

from ..utils.arguments import add_trust, add_values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="config of a detector with an RPN"
    )
    parser.add_argument("--num-gpus", type=int, default=1, help="number of GPUs (and processes)")
    add_trust(parser)
    add_values(
        parser,
        "config values to change, such as MODEL.WEIGHTS model_final.pth",
    )


def run(args: argparse.Namespace) -> None:
    from ..config import load_cfg
    from ..engine import default_argument_parser, launch
    from .proposal_files import require_rpn

    # Use a subfolder, so that config.yaml of the training run in OUTPUT_DIR is not replaced.
    cfg = load_cfg(args.config_file, args.opts, trust=args.trust or None, purpose="train")
    require_rpn(cfg)
    folder = os.path.join(cfg.OUTPUT_DIR, "proposals")
    options = ["--config-file", args.config_file, "--num-gpus", str(args.num_gpus)]
    options += ["--trust"] if args.trust else []
    launch(
        _main, default_argument_parser().parse_args([*options, *args.opts, "OUTPUT_DIR", folder])
    )


def _main(args: argparse.Namespace) -> None:
    from detectron2.utils import comm

    from ..engine import setup
    from .proposal_files import write_proposals

    cfg = setup(args)
    files = write_proposals(cfg, cfg.OUTPUT_DIR)
    if comm.is_main_process():
        print("\nFor configs/libra_fast_r50.yaml:")
        for split in ("TRAIN", "TEST"):
            paths = tuple(files[name] for name in cfg.DATASETS[split])
            print(f'  DATASETS.PROPOSAL_FILES_{split} "{paths}"')
