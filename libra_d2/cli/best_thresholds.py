"""The best score thresholds for commands that read predictions from a file."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..predictions.score_thresholds import ScoreThresholds


def best_of(predictions: str, model: str) -> "ScoreThresholds":
    """
    Return the best score thresholds of a model, or if none is given, those of the run that contains
    the predictions.

    Raises:
        NoBestThresholdsError: there are none.
        UserError: the analysis or the model cannot be read.
    """
    if model:
        from ..inference.best_thresholds import best_of_model

        return best_of_model(model)
    from ..evaluation.run_thresholds import best_of_run, run_of_predictions

    return best_of_run(*run_of_predictions(predictions))
