"""Train, evaluate and analyze a small detector on the built-in data set."""

import argparse
import shlex
import time
from pathlib import Path

from ..errors import UserError

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="values of configs/demo.yaml to change"
    )


def run(args: argparse.Namespace) -> None:
    from ..engine import default_argument_parser, launch

    if not CONFIG.is_file():
        raise UserError(
            f"{CONFIG} does not exist. Run the demo in a checkout of the libra_d2 repository"
        )
    train_args = default_argument_parser().parse_args(["--config-file", str(CONFIG), *args.opts])
    train_args.overwrite = True  # moves the files of an earlier demo away
    launch(_main, train_args)


def _main(args: argparse.Namespace) -> None:
    from ..engine import LibraTrainer, setup
    from ..engine.run_summary import program_name
    from .analysis_run import run_analysis, tasks_of_run

    start = time.perf_counter()
    cfg = setup(args)
    trainer = LibraTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    metrics = {name: value for name, (value, _) in trainer.storage.latest().items()}
    output = Path(cfg.OUTPUT_DIR).resolve()
    for task in tasks_of_run(str(output)):
        run_analysis(task)
    minutes = (time.perf_counter() - start) / 60
    pictures = ("predictions.png", "analysis/report.html", "loss_curve.png", "balance.png")
    files = "".join(f"\n  {output / name}" for name in (*pictures, "model_final.pth"))
    print(
        f"\nAP {metrics['bbox/AP']:.1f}, AP50 {metrics['bbox/AP50']:.1f} on the validation set, "
        f"after {minutes:.1f} minutes. Look at{files}\n"
        f"Try it in a browser:\n"
        f"  {program_name()} serve --model {shlex.quote(cfg.OUTPUT_DIR)}"
    )
