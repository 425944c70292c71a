#!/usr/bin/env python
"""
Train or evaluate a detector. Without a GPU it runs on the CPU.

    python train_net.py --config-file configs/libra_r50.yaml --num-gpus 4
    python train_net.py --config-file configs/libra_r50.yaml --eval-only MODEL.WEIGHTS model.pth

Your own data, in COCO format, needs no code:

    python train_net.py --config-file configs/libra_mobilenet_v2.yaml \\
        DATASETS.TRAIN coco:train.json,images \\
        DATASETS.TEST coco:val.json,images
"""

import gc

from libra_d2.engine import LibraTrainer, default_argument_parser, launch, setup
from libra_d2.planning import plan_if_asked


def main(args):
    cfg = setup(args)
    if args.eval_only:
        return LibraTrainer.evaluate(cfg, resume=args.resume)
    trainer = LibraTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    gc.freeze()  # searching the imported modules for garbage at exit would take a second
    launch(main, default_argument_parser(epilog=__doc__).parse_args(), prepare=plan_if_asked)
