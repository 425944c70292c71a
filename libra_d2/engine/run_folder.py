"""The folder of a run with a brief."""

import datetime
import os
import re
import time

from detectron2.utils import comm

from ..errors import UserError


def run_folder(output_dir: str, brief: str, resume: bool) -> str:
    """
    Make the folder `<output_dir>/<yymmdd_HHMMSS>_<brief>`, or find the newest one of that brief.

    All processes of a run must call this, and get the same name: that of the main process.

    Args:
        output_dir: where the folders of the runs are.
        brief: letters, digits, and `.`, `_`, `-`, `+`, `=`.
        resume: whether an old folder is wanted. If there is none, a new one is made.

    Raises:
        UserError: the brief has other characters in it.
    """
    if not re.fullmatch(r"[\w.+=-]+", brief):
        raise UserError(
            f"OUTPUT_BRIEF {brief!r} becomes the name of a folder: letters, digits and . _ - + = "
            "only"
        )
    folder = None
    if comm.is_main_process():
        folder = (_newest(output_dir, brief) if resume else None) or _new(output_dir, brief)
    return comm.all_gather(folder)[0]


def _newest(output_dir: str, brief: str):
    pattern = re.compile(r"\d{6}_\d{6}_" + re.escape(brief))
    names = os.listdir(output_dir) if os.path.isdir(output_dir) else []
    found = sorted(name for name in names if pattern.fullmatch(name))
    return os.path.join(output_dir, found[-1]) if found else None


def _new(output_dir: str, brief: str) -> str:
    while True:
        stamp = datetime.datetime.now().strftime("%y%m%d_%H%M%S")
        folder = os.path.join(output_dir, f"{stamp}_{brief}")
        try:
            os.makedirs(folder)
            return folder
        except FileExistsError:  # another run began in this second
            time.sleep(0.2)
