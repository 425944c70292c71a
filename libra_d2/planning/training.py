"""Plan before a training run starts, for `train_net.py --plan`."""

import argparse
from pathlib import Path

from ..config import load_cfg
from ..engine.processes import place_from_environment
from ..engine.run_folder import has_trained, refuse_unless
from ..errors import UserError
from .command import PlanOptions, picture_of, seconds, write_plan

_FILE = "plan.yaml"


def plan_if_asked(args: argparse.Namespace) -> argparse.Namespace:
    """
    With `--plan`, write `OUTPUT_DIR/plan.yaml` and `plan.png`, and return arguments that name this
    config. Otherwise, return the arguments unchanged.

    Raises:
        UserError: the options cannot be combined, the run is not new, or there is nothing to plan
            for.
    """
    if not getattr(args, "plan", False):  # Detectron2's parser has no such option
        for option in ("time", "any_orientation"):
            if getattr(args, option, False):
                raise UserError(f"--{option.replace('_', '-')} needs --plan")
        return args
    if args.resume or args.eval_only:
        raise UserError("--plan needs a new run. Leave out --resume and --eval-only")
    if args.num_machines > 1 or place_from_environment():
        raise UserError(
            "--plan measures steps on one machine. Plan with `libra-d2 plan` first, and start "
            "the run on all machines with the planned config"
        )
    trust = args.trust or None
    cfg = load_cfg(args.config_file, args.opts, trust=trust, purpose="train")
    if has_trained(Path(cfg.OUTPUT_DIR)):
        refuse_unless(args.overwrite, cfg.OUTPUT_DIR)
    options = PlanOptions(
        budget=seconds(args.time) if args.time else None,
        any_orientation=args.any_orientation,
        trust=trust,
        processes=args.num_gpus,
    )
    output = str(Path(cfg.OUTPUT_DIR, _FILE))
    plan = write_plan(args.config_file, args.opts, output, options)
    print(plan.table(), f"\nPlan: {output}, picture: {picture_of(output)}", sep="\n", flush=True)
    return argparse.Namespace(**{**vars(args), "config_file": output})
