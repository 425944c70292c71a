"""Train variants of a detector with several seeds, and compare them with confidence intervals."""

import argparse
import sys
from typing import Any, Dict, List

from ..errors import UserError
from ..utils.arguments import add_trust, add_values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--base", metavar="FILE", help="config that all variants change")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--ablate",
        choices=["components"],
        help="compare the components of Libra R-CNN in --base: none of them, each alone, and all",
    )
    what.add_argument(
        "--variants",
        metavar="FILE",
        help="YAML file with the variants, and optionally the other options: see "
        "docs/experiments.md",
    )
    add(
        "--baseline",
        metavar="NAME",
        help='variant that the others are compared with (default: "baseline", or the first)',
    )
    add(
        "--seeds",
        metavar="N",
        help="number of seeds, counted from 1, or a list such as 1,5,9 (default: 3)",
    )
    add("--train", metavar="DATA", help="training set, such as coco:train.json,images")
    add("--test", metavar="DATA", help="test set, such as coco:val.json,images")
    add(
        "--folds",
        type=int,
        metavar="K",
        help="divide the training set into K folds, and test on each of them in turn",
    )
    add(
        "--group-by",
        "--group",
        dest="group",
        metavar="REGEX_OR_KEY",
        help="keep images of a group in one fold, as in `libra-d2 split`",
    )
    add(
        "--plan",
        action="store_true",
        default=None,
        help="plan the settings of all variants for the training set, as `libra-d2 plan` does",
    )
    add("--output", required=True, metavar="FOLDER", help="folder of the experiment")
    add(
        "--parallel",
        type=int,
        default=1,
        metavar="N",
        help="number of runs at the same time, each with a GPU or its share of the cores "
        "(default: %(default)s)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="list the runs, and estimate the time from some steps",
    )
    how.add_argument(
        "--report-only",
        action="store_true",
        help="write the results of the finished runs in --output, and train nothing",
    )
    add_trust(parser)
    add_values(parser, "config values to change in all variants")


def run(args: argparse.Namespace) -> int:
    from ..experiments import runner

    if args.report_only:
        if args.base or args.variants:
            runner.check_output(_design(args))
        runner.report(args.output, trust=args.trust)
        return 0
    design = _design(args)
    if args.dry_run:
        print(runner.dry_run(design, parallel=args.parallel, trust=args.trust))
        return 0
    errors = runner.run_experiment(design, parallel=args.parallel, trust=args.trust)
    if not errors:
        return 0
    print(f"{len(errors)} of {len(design.runs())} runs failed:", file=sys.stderr)
    for name, reason in errors.items():
        print(f"  {name}: {reason}", file=sys.stderr)
    print("Give the same command again to retry them", file=sys.stderr)
    return 1


def _design(args: argparse.Namespace) -> Any:
    """
    Returns:
        The :class:`~libra_d2.experiments.design.Design` of the options, which override those of the
        file of `--variants`.
    """
    from ..experiments.design import Design, overrides_from_file, parse_seeds
    from ..experiments.variants import component_variants, default_baseline, read_variants

    values: Dict[str, Any] = {}
    variants: List[Any] = []
    if args.variants:
        variants, values = read_variants(args.variants)
    names = ("base", "baseline", "seeds", "train", "test", "folds", "group", "plan")
    values.update((n, getattr(args, n)) for n in names if getattr(args, n) is not None)
    if not values.get("base"):
        raise UserError("--base FILE must name the config that the variants change")
    overrides = (*overrides_from_file(values.get("overrides"), "overrides"), *args.opts)
    if args.ablate:
        variants = component_variants(values["base"], overrides, trust=args.trust)
    elif not args.variants:
        raise UserError("the variants are missing. Give --ablate components or --variants FILE")
    return Design(
        base=values["base"],
        variants=tuple(variants),
        baseline=values.get("baseline") or default_baseline(variants),
        seeds=parse_seeds(values.get("seeds", 3)),
        train=values.get("train", ""),
        test=values.get("test", ""),
        folds=values.get("folds", 0),
        group=values.get("group", ""),
        plan=values.get("plan", False),
        output=args.output,
        overrides=overrides,
    )
