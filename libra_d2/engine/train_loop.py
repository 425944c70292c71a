"""The training step: gradient accumulation, mixed precision and a check for non-finite numbers."""

import time
import warnings
from contextlib import nullcontext
from typing import Any, Callable, ContextManager, Dict, List, Optional, Tuple

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer, create_ddp_model
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch.nn.parallel import DistributedDataParallel

from .non_finite import MicroBatch, NonFiniteGuard
from .solver import with_gradients


class LibraTrainLoop(SimpleTrainer):
    """
    Runs training steps like Detectron2's `SimpleTrainer`. With the default arguments, the results
    are identical bit for bit.

    A step waits for the device only once: the losses, which Detectron2 reads one by one, are
    copied to the host together with the norm of the gradients. If one of these numbers is infinite
    or NaN, the optimizer does not step.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        data_loader,
        optimizer: torch.optim.Optimizer,
        *,
        guard: NonFiniteGuard,
        accumulation_steps: int = 1,
        amp_dtype: Optional[torch.dtype] = None,
        grad_scaler: Optional[torch.amp.GradScaler] = None,
        after_backward: Optional[Callable[[], None]] = None,
        stop_requested: Callable[[], int] = lambda: 0,
        **kwargs,
    ):
        """
        Args:
            data_loader: yields the images of a step as a list of dicts.
            guard: decides what happens to a step whose numbers are not finite.
            accumulation_steps: number of micro-batches into which the images of a step are split.
                The loss of the step is their average, weighted by the number of images.
            amp_dtype: dtype of autocast; None for full precision.
            grad_scaler: needed for float16.
            after_backward: called before the optimizer steps, when all gradients are computed and
                unscaled.
            stop_requested: returns the number of the signal that asks this process to stop, or 0.
            kwargs: see :class:`SimpleTrainer`.
        """
        super().__init__(model, data_loader, optimizer, **kwargs)
        self.guard = guard
        self.accumulation_steps = accumulation_steps
        self.amp_dtype = amp_dtype
        self.grad_scaler = grad_scaler
        self._hooks_after_backward = after_backward
        self._stop_requested = stop_requested
        self.stop_signal = 0  # as of the last step; the largest number among all processes
        self._device = next(model.parameters()).device

    def run_step(self) -> None:
        assert self.model.training, "model was changed to eval mode"
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        self.optimizer.zero_grad()
        parts = split_batch(data, self.accumulation_steps)
        micro_batches = []
        for i, part in enumerate(parts):
            with self._synchronized_if(i + 1 == len(parts)):
                micro_batches.append(self._forward_backward(part, len(part) / len(data)))
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        self.after_backward()

        weights = [len(part) / len(data) for part in parts]
        losses, norm, bad_loss, bad_gradient = self._read(micro_batches, weights)
        scaled = self.grad_scaler is not None
        if self.guard.allows_step(bad_loss=bad_loss, bad_gradient=bad_gradient, scaled=scaled):
            self._write_metrics(losses, data_time)
            _write_augmentation(data)
            self._step()
            return
        self.guard.handle(
            iteration=self.iter,
            micro_batches=micro_batches,
            gradient_norm=norm,
            optimizer=self.optimizer,
            model=unwrapped(self.model),
        )
        if self.grad_scaler is not None:  # resets it for the next step; the scale stays the same
            self.grad_scaler.update(self.grad_scaler.get_scale())

    def after_backward(self) -> None:
        super().after_backward()
        if self._hooks_after_backward is not None:
            self._hooks_after_backward()

    def _synchronized_if(self, last: bool) -> ContextManager:
        """Let processes exchange gradients only once per step, in the last micro-batch."""
        distributed = isinstance(self.model, DistributedDataParallel)
        return self.model.no_sync() if distributed and not last else nullcontext()

    def _autocast(self) -> ContextManager:
        if self.amp_dtype is None:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self.amp_dtype)

    def _forward_backward(self, data: List[Dict[str, Any]], weight: float) -> MicroBatch:
        images = [str(d.get("file_name", d.get("image_id", "?"))) for d in data]
        error = ""
        with self._autocast():
            try:
                loss_dict = self.model(data)
            except FloatingPointError as e:  # raised by an RPN whose boxes are NaN
                error, loss_dict = str(e), self._nan_losses(data)
            if isinstance(loss_dict, torch.Tensor):
                loss_dict = {"total_loss": loss_dict}
            loss = sum(loss_dict.values())
        if weight != 1:
            loss = loss * weight
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()
        return MicroBatch(images, {k: v.detach() for k, v in loss_dict.items()}, error)

    def _nan_losses(self, data: List[Dict[str, Any]]) -> Dict[str, torch.Tensor]:
        """
        Return a loss of NaN that depends on all weights, so that this process exchanges gradients
        with the others, which wait for them, and all processes notice the failure.
        """
        model = unwrapped(self.model)
        trained = [p for p in model.parameters() if p.requires_grad]
        model.forward = lambda _: {"total_loss": float("nan") * sum(p.sum() for p in trained)}
        try:
            return self.model(data)
        finally:
            del model.forward

    def _read(
        self, micro_batches: List[MicroBatch], weights: List[float]
    ) -> Tuple[Dict[str, torch.Tensor], float, bool, bool]:
        """
        Return the losses of the step as scalars on the CPU, the norm of the gradients, whether any
        process has a non-finite loss, and whether any has a non-finite gradient.
        """
        mean: Dict[str, torch.Tensor] = {}
        for batch, weight in zip(micro_batches, weights):
            for name, value in batch.losses.items():
                mean[name] = mean.get(name, 0) + value.float() * weight
        losses = torch.stack(list(mean.values()))
        gradients = [p.grad for p in with_gradients(self.optimizer) if p.grad is not None]
        norm = _total_norm(gradients, losses.device)
        bad = ~torch.stack([losses.isfinite().all(), norm.isfinite()])
        bad = bad.to(losses.dtype)
        stop = bad.new_full((1,), self._stop_requested())
        if comm.get_world_size() > 1:
            dist.all_reduce(shared := torch.cat([bad, stop]), dist.ReduceOp.MAX)
            bad, stop = shared[:2], shared[2:]
        # The only place where the host waits for the device.
        *on_host, norm, bad_loss, bad_gradient, stop = torch.cat(
            [losses, norm[None], bad, stop]
        ).cpu()
        self.stop_signal = int(stop)
        return dict(zip(mean, on_host)), norm.item(), bool(bad_loss), bool(bad_gradient)

    def _step(self) -> None:
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    def state_dict(self) -> Dict[str, Any]:
        ret = super().state_dict()
        ret["non_finite"] = self.guard.state_dict()
        if self.grad_scaler is not None:
            ret["grad_scaler"] = self.grad_scaler.state_dict()
        return ret

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # The checkpoint may be of another precision, or of plain Detectron2.
        if "non_finite" in state_dict:
            self.guard.load_state_dict(state_dict["non_finite"])
        if self.grad_scaler is not None and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def split_batch(data: List[Dict[str, Any]], accumulation_steps: int) -> List[List[Dict[str, Any]]]:
    """
    Split the images of a step into micro-batches, of which the last one may be smaller.

    >>> split_batch([{"image_id": i} for i in range(3)], 2)
    [[{'image_id': 0}, {'image_id': 1}], [{'image_id': 2}]]
    """
    size = -(-len(data) // accumulation_steps)
    return [data[i : i + size] for i in range(0, len(data), size)]


def build_train_loop(
    cfg: CfgNode,
    model: torch.nn.Module,
    data_loader,
    optimizer: torch.optim.Optimizer,
    after_backward: Callable[[], None],
    stop_requested: Callable[[], int] = lambda: 0,
) -> LibraTrainLoop:
    """Build the training loop that `SOLVER` describes."""
    solver = cfg.SOLVER
    amp_dtype = getattr(torch, solver.AMP.DTYPE) if solver.AMP.ENABLED else None
    return LibraTrainLoop(
        model,
        data_loader,
        optimizer,
        guard=NonFiniteGuard(
            output_dir=cfg.OUTPUT_DIR,
            max_skips=solver.NON_FINITE_SKIPS,
        ),
        accumulation_steps=solver.ACCUMULATION_STEPS,
        amp_dtype=amp_dtype,
        grad_scaler=torch.amp.GradScaler("cuda") if amp_dtype == torch.float16 else None,
        after_backward=after_backward,
        stop_requested=stop_requested,
    )


def _write_augmentation(data: List[Dict[str, Any]]) -> None:
    """Write how many objects `INPUT.AUGMENTATIONS` dropped and pasted in this process' images."""
    for name in ("dropped_boxes", "pasted_boxes"):
        if any(name in d for d in data):
            number = sum(d.get(name, 0) for d in data)
            get_event_storage().put_scalar(f"augmentation/{name}", number, smoothing_hint=False)


def distributed(model: torch.nn.Module, device: str) -> torch.nn.Module:
    """
    Wrap a model for distributed training if there are several processes. Unlike Detectron2's
    `create_ddp_model`, this does not select a GPU for a model on the CPU.
    """
    on_cpu = {"device_ids": None} if device == "cpu" else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*broadcast_buffers.*deprecated", FutureWarning)
        return create_ddp_model(model, broadcast_buffers=False, **on_cpu)


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model without its wrapper for distributed training."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def _total_norm(gradients: List[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Compute the L2 norm of all gradients together, in float32, without waiting for the device."""
    if not gradients:
        return torch.zeros((), device=device)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))).float()
