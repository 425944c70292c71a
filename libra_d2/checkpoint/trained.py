"""Weights that are all of a detector."""

from ..errors import UserError
from .checkpointer import LibraCheckpointer


def load_trained(checkpointer: LibraCheckpointer, weights: str, resume: bool = False) -> None:
    """
    Load a trained detector into the checkpointer's model.

    Args:
        weights: `MODEL.WEIGHTS`.
        resume: take the last checkpoint of the checkpointer's folder instead, if there is one.

    Raises:
        UserError: there is none, it is a classifier, or it leaves a part of the model untrained.
    """
    checkpointer.resume_or_load(weights, resume=resume)
    from_run = resume and checkpointer.has_checkpoint()
    if checkpointer.backbone_only or not (from_run or weights):
        raise UserError(
            f"MODEL.WEIGHTS {weights!r} is no trained detector: name a checkpoint, such as "
            "OUTPUT_DIR/model_final.pth"
        )
    if checkpointer.report is not None and checkpointer.report.untrained():
        first = checkpointer.report.untrained()[0]
        raise UserError(
            f"{weights} does not have all of this model, such as {first}: train it before it is "
            "evaluated, or take the config and the classes of the checkpoint"
        )
