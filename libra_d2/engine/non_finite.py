"""Handling of training steps whose loss or gradient is infinite or NaN."""

import json
import logging
import math
import os
from dataclasses import dataclass
from itertools import chain
from typing import Any, Dict, List, Sequence

import torch
from detectron2.utils import comm

from ..errors import UserError
from ..utils.files import replacing

logger = logging.getLogger(__name__)

# If float16 gradients overflow more often in a row, lowering the loss scale does not help.
MAX_OVERFLOWS = 30


@dataclass
class MicroBatch:
    """Images that went through the model together, and their losses."""

    images: List[str]
    losses: Dict[str, torch.Tensor]  # scalars, detached
    error: str = ""  # the error that the model raised in place of losses


class NonFiniteGuard:
    """
    Decides whether the optimizer may step. If not, records the reason in
    `OUTPUT_DIR/non_finite/iter_0001234.json`.
    """

    def __init__(self, *, output_dir: str, max_skips: int = 0):
        """
        Args:
            max_skips: number of consecutive steps that are skipped before the run stops.

        Raises:
            UserError: `max_skips` is negative.
        """
        if max_skips < 0:
            raise UserError(f"SOLVER.NON_FINITE_SKIPS must be at least 0, got {max_skips}")
        self.folder = os.path.join(output_dir, "non_finite")
        self.max_skips = max_skips
        self.skipped = self.skipped_in_a_row = self.overflows_in_a_row = 0

    def allows_step(self, *, bad_loss: bool, bad_gradient: bool, scaled: bool) -> bool:
        """
        Args:
            bad_loss, bad_gradient: whether any process has a non-finite one.
            scaled: whether there is a gradient scaler, which skips the step itself, and lowers its
                scale, if a gradient overflows.

        Returns:
            Whether the optimizer, or its scaler, may step.
        """
        self.overflows_in_a_row = self.overflows_in_a_row + 1 if scaled and bad_gradient else 0
        overflowed = scaled and self.overflows_in_a_row <= MAX_OVERFLOWS
        allowed = not bad_loss and (overflowed or not bad_gradient)
        if allowed:
            self.skipped_in_a_row = 0
        return allowed

    def handle(
        self,
        *,
        iteration: int,
        micro_batches: Sequence[MicroBatch],
        gradient_norm: float,
        optimizer: torch.optim.Optimizer,
        model: torch.nn.Module,
    ) -> None:
        """
        Record and skip a step that was not allowed. All processes must call this together. It
        waits for the device.

        Raises:
            UserError: the run must stop.
        """
        own = [_as_numbers(batch) | {"rank": comm.get_rank()} for batch in micro_batches]
        batches = list(chain.from_iterable(comm.all_gather(own)))
        # If only the gradients are non-finite, any image may be the cause.
        bad = [b for b in batches if b["error"] or not _all_finite(b["losses"])] or batches
        weights = _non_finite(chain(model.named_parameters(), model.named_buffers()))
        weights_lost = any(comm.all_gather(bool(weights)))
        gradients = _non_finite((n, p.grad) for n, p in model.named_parameters())
        record = {
            "iteration": iteration,
            "learning_rate": sorted({float(group["lr"]) for group in optimizer.param_groups}),
            "gradient_norm": gradient_norm,
            "micro_batches": bad,
            "non_finite_gradients": gradients,
            "non_finite_weights": weights,
        }
        path = os.path.join(self.folder, f"iter_{iteration:07d}.json")
        if comm.is_main_process():
            os.makedirs(self.folder, exist_ok=True)
            with replacing(path) as partial, open(partial, "w", encoding="utf-8") as f:
                json.dump(_without_nan(record), f, indent=1)
        comm.synchronize()  # when one process ends, the launcher ends the others

        what = f"{_what(bad)} in iteration {iteration}, {_images(bad)}; see {path}"
        if weights_lost:
            raise UserError(f"{what}. The weights themselves contain infinity or NaN")
        if self.skipped_in_a_row >= self.max_skips:
            tried = f" The {self.skipped_in_a_row} steps before it were skipped."
            raise UserError(
                f"{what}.{tried if self.skipped_in_a_row else ''} Check the annotations of these "
                "images, or try a lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_ITERS or "
                "SOLVER.CLIP_GRADIENTS.ENABLED True"
                + ("" if self.max_skips else ", or SOLVER.NON_FINITE_SKIPS 10")
            )
        self.skipped += 1
        self.skipped_in_a_row += 1
        logger.warning(f"{what}. Skipping the step ({self.skipped} skipped so far)")

    def state_dict(self) -> Dict[str, int]:
        names = ("skipped", "skipped_in_a_row", "overflows_in_a_row")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Dict[str, int]) -> None:
        self.__dict__.update(state)


def _as_numbers(batch: MicroBatch) -> Dict[str, Any]:
    losses = {name: float(value) for name, value in batch.losses.items()}
    return {"images": batch.images, "losses": losses, "error": batch.error}


def _all_finite(losses: Dict[str, float]) -> bool:
    return all(map(math.isfinite, losses.values()))


def _non_finite(named) -> List[str]:
    return [name for name, t in named if t is not None and not torch.isfinite(t).all()]


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by the strings "nan" and "inf"."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _what(batches: List[Dict[str, Any]]) -> str:
    error = next((b["error"] for b in batches if b["error"]), "")
    if error:
        return f"no loss ({error})"
    losses = {k: v for b in batches for k, v in b["losses"].items() if not math.isfinite(v)}
    if losses:
        return "non-finite " + ", ".join(f"{name} ({value})" for name, value in losses.items())
    return "non-finite gradients"


def _images(batches: List[Dict[str, Any]], shown: int = 4) -> str:
    names = [name for b in batches for name in b["images"]]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    ranks = ", ".join(str(rank) for rank in sorted({b["rank"] for b in batches}))
    return f"with {', '.join(names[:shown])}{more} (rank {ranks})"
