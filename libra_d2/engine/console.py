"""Logging of a run to the terminal and to `log.txt`; long texts go to files of their own."""

import logging
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import List, Set

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from termcolor import colored
from tqdm import tqdm

from ..utils.files import write_text
from ..utils.package_versions import package_versions
from .log_files import close_if_full

logger = logging.getLogger(__name__)

WIDTH = 120  # columns
_ROOTS = ("libra_d2", "detectron2", "fvcore")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# Messages that begin like this are written to a file in the run folder instead of the log.
_LONG = {
    "Model:\n": "model.txt",
    "Tensors of the weights:\n": "weights.txt",
}
_SOURCES = ("libra_d2.engine.trainer", "libra_d2.checkpoint.checkpointer")
# Messages of Detectron2 that are also shown on the terminal. The others are only in log.txt.
_NEWS = re.compile(
    r"Starting training from iteration|Total training time|Removed [1-9]\d* images"
    r"|copypaste: |Ignored the decoding error"
)


def setup_logging(output_dir: str = "") -> None:
    """
    Send the log of Detectron2, fvcore and this package to `log.txt`, and its most important
    messages to the terminal. Processes other than the first write to `log.txt.rank<N>` only. The
    log of an earlier run in this Python process is closed.

    Args:
        output_dir: folder of `log.txt`; "" for no file.
    """
    rank = comm.get_rank()
    handlers: List[logging.Handler] = []
    if output_dir:
        os.makedirs(output_dir, exist_ok=True)
        path = os.path.join(output_dir, "log.txt" + (f".rank{rank}" if rank else ""))
        handlers.append(_LogFile(path, mode="a", encoding="utf-8", delay=True))
    if rank == 0:
        handlers.append(_Terminal())
    for name in _ROOTS:
        root = logging.getLogger(name)
        root.setLevel(logging.DEBUG)
        root.propagate = False
        for old in list(root.handlers):
            if isinstance(old, (_LogFile, _Terminal)) or _is_on_terminal(old):
                root.removeHandler(old)
                if isinstance(old, _LogFile):
                    old.close()
        for handler in handlers:
            root.addHandler(handler)


def quiet_default_setup(cfg: CfgNode, args) -> None:
    """
    Do what Detectron2's `default_setup` does: seed the generators of random numbers, set cuDNN's
    benchmark mode, and write the environment and the config. These only go to files, and a config
    is there completely or not at all. An evaluation leaves that of a training run.
    """
    long_texts = _LongTexts(cfg.OUTPUT_DIR, replace=not args.eval_only)
    for source in map(logging.getLogger, _SOURCES):
        for old in [f for f in source.filters if isinstance(f, _LongTexts)]:
            source.removeFilter(old)
        source.addFilter(long_texts)
    texts = {"environment.txt": lambda: collect_env_info() + "\n", "config.yaml": cfg.dump}
    for name, text in texts.items() if comm.is_main_process() else ():
        path = os.path.join(cfg.OUTPUT_DIR, name)
        if not (args.eval_only and os.path.isfile(path)):
            write_text(path, text())
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


def log_versions(cfg: CfgNode, no_cuda: bool) -> None:
    """
    Log versions, device and number of processes in one line.

    Args:
        no_cuda: whether the run uses the CPU only because the machine has no CUDA device.
    """
    versions = package_versions()
    python = ".".join(map(str, sys.version_info[:3]))
    device = cfg.MODEL.DEVICE
    if device.startswith("cuda"):
        device = torch.cuda.get_device_name(device)
    else:
        device = "No CUDA device: running on the CPU" if no_cuda else device.upper()
        device += f" with {torch.get_num_threads()} threads"
    count = comm.get_world_size()
    logger.info(
        f"libra_d2 {versions['libra_d2']}, Detectron2 {versions['detectron2']}, torch "
        f"{versions['torch']}, Python {python}; {device}"
        + (f", {count} processes" if count > 1 else "")
    )


class _LongTexts(logging.Filter):
    """Takes long texts out of the log and writes them to files."""

    def __init__(self, output_dir: str, *, replace: bool):
        super().__init__()
        self.output_dir = output_dir
        self.replace = replace  # if False, files of a training run in that folder are kept
        self._written: Set[str] = set()  # only the first model of this process is the run's

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        for start, name in _LONG.items():
            if text.startswith(start):
                path = Path(self.output_dir, name)
                if not path.parent.is_dir():  # the folder of a run that is over was deleted
                    return True
                is_first = name not in self._written
                self._written.add(name)
                if is_first and comm.is_main_process() and (self.replace or not path.exists()):
                    write_text(str(path), text[len(start) :] + "\n")
                return False
        return True


class _LogFile(logging.FileHandler):
    def __init__(self, path: str, **kwargs):
        super().__init__(path, **kwargs)
        self.setFormatter(_Formatter("%m/%d %H:%M:%S", named=True))

    def handleError(self, record: logging.LogRecord) -> None:
        close_if_full(self, super().handleError, record)


class _Terminal(logging.Handler):
    """Writes important messages to the current `sys.stdout`, above progress bars."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(_Formatter("%H:%M:%S"))
        self.addFilter(_is_news)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
                stamp, _, rest = text.partition("] ")
                text = f"{colored(stamp + ']', 'green')} {rest}"
                if record.levelno >= logging.WARNING:
                    text = text.replace("WARNING:", colored("WARNING:", "red"), 1)
                    text = text.replace("ERROR:", colored("ERROR:", "red"), 1)
            with tqdm.external_write_mode(file=sys.stdout):
                sys.stdout.write(text + "\n")
                sys.stdout.flush()
        except Exception:
            self.handleError(record)


class _Formatter(logging.Formatter):
    """Formats `[time] LEVEL: text`, and wraps a record with `fields` at `WIDTH` columns."""

    def __init__(self, date_format: str, named: bool = False):
        super().__init__(datefmt=date_format)
        self.named = named

    def format(self, record: logging.LogRecord) -> str:
        start = f"[{self.formatTime(record, self.datefmt)}] "
        fields = getattr(record, "fields", None)
        if fields:
            return start + wrapped(fields, WIDTH - len(start)).replace(
                "\n", "\n" + " " * len(start)
            )
        ours = record.name.startswith("libra_d2")
        if self.named and not (ours and record.levelno == logging.INFO):
            start += f"{record.name} "
        if record.levelno > logging.INFO:
            start += f"{record.levelname}: "
        record.message = record.getMessage()
        # `logging.Formatter` appends the stack trace to the message.
        return start + _ESCAPES.sub("", super().format(record))


def wrapped(fields: List[str], width: int) -> str:
    """Join fields with two spaces between them, in lines of at most `width` columns if possible."""
    text = "  ".join(field.replace(" ", "\0") for field in fields)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _is_on_terminal(handler: logging.Handler) -> bool:
    """Whether a handler writes to the terminal, like those of Detectron2's `setup_logger`."""
    stream = getattr(handler, "stream", None)
    return stream is not None and stream in (sys.stdout, sys.__stdout__)


def _is_news(record: logging.LogRecord) -> bool:
    if record.levelno > logging.INFO or record.name.startswith("libra_d2"):
        return True
    return hasattr(record, "fields") or bool(_NEWS.match(record.getMessage()))
