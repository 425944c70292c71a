"""
Schedules in epochs and in shares of the run.

`SOLVER.EPOCHS` sets the length of a run instead of `SOLVER.MAX_ITER`, and the values of `KEYS` may
be texts such as "1 epoch" or "70%". The config keeps what the user gave until the number of
training images is known. Then, :func:`resolve` replaces it by iterations.
"""

import math
import re
from fractions import Fraction
from typing import Any, Collection, List, NamedTuple, Optional, Tuple, Union

from detectron2.config import CfgNode

from ..errors import UserError
from ..utils.messages import printable, shown
from .flattening import set_value, value_at
from .values import number

Value = Union[int, str]

STEPS = "SOLVER.STEPS"
KEYS = (STEPS, "SOLVER.WARMUP_ITERS", "SOLVER.CHECKPOINT_PERIOD", "TEST.EVAL_PERIOD")
_EXPECTED = 'must be a number of iterations, a share such as 10% or epochs such as "2 epochs"'
_TEXT = re.compile(r"(\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})\s*(%|epochs?)", re.ASCII | re.IGNORECASE)
_NOTES = "_schedule_notes"


class Amount(NamedTuple):
    """A part of a run. `unit` is "iterations", "%" (of the run) or "epochs"."""

    number: Fraction
    unit: str


def parse(value: Any) -> Optional[Amount]:
    """
    Read a value of a schedule; None if it is not one.

    >>> parse("70%")
    Amount(number=Fraction(70, 1), unit='%')
    >>> parse("0.5 epochs")
    Amount(number=Fraction(1, 2), unit='epochs')
    >>> parse(300).unit, parse("soon"), parse("300")
    ('iterations', None, None)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return Amount(Fraction(value), "iterations")
    match = _TEXT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    return Amount(Fraction(match[1]), "%" if match[2] == "%" else "epochs")


def share(iterations: int, max_iter: int) -> str:
    """
    Express iterations as a share of a run.

    >>> share(60000, 90000), share(300, 400)
    ('66.66666666%', '75%')
    """
    # Rounded down, so that a period that is rounded up becomes the same number again.
    whole, rest = divmod(iterations * 10**10 // max_iter, 10**8)
    return f"{whole}.{rest:08d}".rstrip("0").rstrip(".") + "%"


def iterations_of(value: Value, max_iter: int, per_epoch: Fraction) -> Fraction:
    """
    Convert a value to iterations, which may be a fraction.

    Args:
        max_iter: number of iterations of the run.
        per_epoch: number of iterations of an epoch.

    >>> [float(iterations_of(value, 90, Fraction(15, 2))) for value in ("10%", "1 epoch", 20)]
    [9.0, 7.5, 20.0]
    """
    amount = parse(value)
    if amount is None:
        raise UserError(f"the schedule {_EXPECTED}, got {shown(value)}")
    scale = {"iterations": Fraction(1), "%": Fraction(max_iter, 100), "epochs": per_epoch}
    return amount.number * scale[amount.unit]


def read_value(key: str, value: Any) -> Tuple[Any, str]:
    """
    Read a value of one of `KEYS` from a config file or the command line.

    Returns:
        The value and "", or the value and a message if it is neither a number of iterations nor a
        text with a unit.

    >>> read_value("SOLVER.STEPS", "(70%, 90%)")
    (('70%', '90%'), '')
    """
    if key != STEPS:
        bad = parse(value) is None
        return value, f"{key} {_EXPECTED}, got {shown(value)}" if bad else ""
    if isinstance(value, str) and value[:1] in ("(", "["):  # without quotes around the entries
        value = [v.strip().strip("'\"") for v in value.strip("()[] ").split(",")]
        value = [int(v) if re.fullmatch(r"\d{1,12}", v) else v for v in value if v]
    if isinstance(value, (list, tuple)):
        for entry in value:
            if isinstance(entry, str) and parse(entry) is None:
                return value, f"each number of {key} {_EXPECTED}, got {shown(entry)} in " + shown(
                    tuple(value)
                )
        value = tuple(value)
    return value, ""


def check_amount(key: str, value: Any, *, low: int) -> List[str]:
    """Check a value of a schedule that is not `STEPS`. The least number of iterations is `low`."""
    if not isinstance(value, str):
        return number(key, value, low=low, whole=True)
    amount = parse(value)
    if amount is None:
        return [f"{key} {_EXPECTED}, got {shown(value)}"]
    if low > 0 and not amount.number:
        return [f"{key} must be above 0, got {shown(value)}"]
    if amount.unit == "%" and amount.number > 100:
        return [f"{key} must be a share of at most 100%, got {shown(value)}"]
    return []


def check_steps(steps: Tuple[Value, ...]) -> List[str]:
    """Check `SOLVER.STEPS`. Entries of different units are compared by :func:`resolve`."""
    of_unit: dict = {}
    for step in steps:
        messages = check_amount(f"each number of {STEPS}", step, low=1)
        amount = parse(step)
        if amount is not None and amount.unit == "%" and amount.number == 100:
            messages = [f"each number of {STEPS} must be a share below 100%, got {shown(step)}"]
        if messages or amount is None:
            return [f"{messages[0]} in {shown(tuple(steps))}"]
        of_unit.setdefault(amount.unit, []).append(amount.number)
    if any(sorted(set(values)) != values for values in of_unit.values()):
        return [f"{STEPS} must increase, got {tuple(steps)}"]
    return []


def is_off(period: Value) -> bool:
    """Return whether a period is 0, as a number or a text."""
    amount = parse(period)
    return amount is None or amount.number <= 0


class Scaled(NamedTuple):
    """Numbers of iterations that keep their share of `max_iter`, because `EPOCHS` was set later."""

    key: str
    value: Any
    max_iter: int


class Notes:
    """What the values of a schedule do not say about it."""

    def __init__(self) -> None:
        self.steps_on_command_line = False
        self.shares_in_steps = False
        self.scaled: List[Scaled] = []


def notes_of(cfg: CfgNode) -> Notes:
    """Return the notes of a config. Its clones have them, too, but not the files it is saved to."""
    return cfg.__dict__.setdefault(_NOTES, Notes())


class Layers:
    """
    Follows the length of the run through the layers of a config: its files and the command line.

    Numbers of iterations that are set before the layer that sets `SOLVER.EPOCHS` keep their share
    of the `MAX_ITER` before it. Numbers in that layer or after it are iterations.
    """

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg
        self._max_iter = cfg.SOLVER.MAX_ITER  # at the end of the last layer
        self._source = ""  # the layer that set EPOCHS, or "" while it is off
        self._max_iter_before = 0
        self._set_since: set = set()

    def end_layer(self, source: str, keys: Collection[str]) -> List[str]:
        """
        Must be called when the settings of a layer have been merged.

        Args:
            source: name of the layer in messages.
            keys: those that the layer sets.

        Returns:
            A message if both `MAX_ITER` and `EPOCHS` set the length of the run.
        """
        solver, messages = self.cfg.SOLVER, []
        epochs, max_iter = solver.EPOCHS, solver.MAX_ITER
        if epochs <= 0:
            self._source = ""
        else:
            # 0 is what a saved config has if EPOCHS sets the length.
            if "SOLVER.MAX_ITER" in keys and max_iter:
                here = "SOLVER.EPOCHS" in keys
                by = "" if here else f" of {printable(self._source)}"
                again = "" if here else " as well"
                messages = [
                    f"{printable(source)}: SOLVER.MAX_ITER {max_iter} and SOLVER.EPOCHS "
                    f"{epochs:g}{by} both set the length of the run. Choose one: leave out "
                    f"SOLVER.MAX_ITER, or set SOLVER.EPOCHS 0.0{again}"
                ]
            if not self._source:
                self._source, self._max_iter_before = source, self._max_iter
                self._set_since = set()
            self._set_since.update(keys)
        self._max_iter = max_iter
        return messages

    def finish(self) -> None:
        """Scale the numbers of earlier layers. `MAX_ITER` becomes 0 until it is known."""
        cfg, of = self.cfg, self._max_iter_before
        notes = notes_of(cfg)
        if self._source:
            cfg.SOLVER.MAX_ITER = 0
            for key in KEYS if of > 0 else ():
                before = value_at(cfg, key)
                value = _scaled(before, of)
                if key not in self._set_since and value != before:
                    set_value(cfg, key, value)
                    notes.scaled.append(Scaled(key, before, of))
        notes.shares_in_steps = any(_unit(step) == "%" for step in cfg.SOLVER.STEPS)


def _scaled(value: Any, max_iter: int) -> Any:
    if isinstance(value, tuple):
        # Steps after the end have no effect, and keep none.
        return tuple(_scaled(v, max_iter) for v in value if not isinstance(v, int) or v < max_iter)
    if type(value) is not int or value <= 0:
        return value
    return share(min(value, max_iter), max_iter)


def is_resolved(cfg: CfgNode) -> bool:
    """Return whether the schedule is in iterations."""
    has_texts = any(isinstance(v, str) for v in _values(cfg))
    return not has_texts and cfg.SOLVER.EPOCHS <= 0


def needs_epochs(cfg: CfgNode) -> bool:
    """Return whether the number of images must be known to resolve the schedule."""
    return cfg.SOLVER.EPOCHS > 0 or any(_unit(v) == "epochs" for v in _values(cfg))


def resolve(cfg: CfgNode, num_images: int = 0) -> None:
    """
    Replace epochs and shares by iterations. `MAX_ITER` and periods are rounded up, and steps and
    warm-up are rounded to the nearest iteration. `EPOCHS` becomes 0, so that `MAX_ITER` alone is
    the length of the run, also in a dump of the config.

    Args:
        cfg: modified in place.
        num_images: number of images of an epoch, needed if :func:`needs_epochs`.

    Raises:
        UserError: `STEPS` do not increase.
    """
    solver, test = cfg.SOLVER, cfg.TEST
    per_epoch = Fraction(num_images, solver.IMS_PER_BATCH)
    if solver.EPOCHS > 0:
        solver.MAX_ITER = max(math.ceil(Fraction(str(solver.EPOCHS)) * per_epoch), 1)

    def exact(value: Value) -> Fraction:
        return iterations_of(value, solver.MAX_ITER, per_epoch)

    if any(isinstance(step, str) for step in solver.STEPS):
        solver.STEPS = _resolved_steps(solver.STEPS, solver.MAX_ITER, per_epoch)
    if isinstance(solver.WARMUP_ITERS, str):
        solver.WARMUP_ITERS = _nearest(exact(solver.WARMUP_ITERS))
    if isinstance(solver.CHECKPOINT_PERIOD, str):
        solver.CHECKPOINT_PERIOD = max(math.ceil(exact(solver.CHECKPOINT_PERIOD)), 1)
    if isinstance(test.EVAL_PERIOD, str):
        test.EVAL_PERIOD = math.ceil(exact(test.EVAL_PERIOD))
    solver.EPOCHS = 0.0


def _resolved_steps(
    steps: Tuple[Value, ...], max_iter: int, per_epoch: Fraction
) -> Tuple[int, ...]:
    at = [iterations_of(step, max_iter, per_epoch) for step in steps]
    whole = [_nearest(position) for position in at]
    if sorted(set(at)) != at:
        raise UserError(
            f"{STEPS} must increase, got {tuple(steps)}, which are the iterations {tuple(whole)}"
        )
    # In a very short run, steps may be rounded to the same iteration, or to the first or last one.
    ret = [n for n, exact in zip(whole, at) if n > 0 and (n < max_iter or exact >= max_iter)]
    return tuple(dict.fromkeys(ret))


def scaled_line(cfg: CfgNode, epochs: float) -> str:
    """Say, for a resolved config, which numbers of iterations `EPOCHS` has scaled; "" for none."""
    scaled = notes_of(cfg).scaled
    if not scaled:
        return ""
    parts = ", ".join(f"{s.key} {s.value} -> {value_at(cfg, s.key)}" for s in scaled)
    return (
        f"SOLVER.EPOCHS {epochs:g}: numbers that were set for {scaled[0].max_iter} "
        f"iterations are scaled to {cfg.SOLVER.MAX_ITER}: {parts}"
    )


def _nearest(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def _unit(value: Any) -> str:
    amount = parse(value)
    return amount.unit if amount else ""


def _values(cfg: CfgNode) -> List[Any]:
    return [*cfg.SOLVER.STEPS, *(value_at(cfg, key) for key in KEYS if key != STEPS)]
