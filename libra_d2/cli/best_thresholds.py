"""The best score thresholds for commands that read predictions from a file."""

from typing import TYPE_CHECKING, Union

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


def given_or_best(
    given: Union[float, str, None], predictions: str, model: str
) -> "ScoreThresholds":
    """
    Return the score thresholds that the user has given. If none are given, return the best ones of
    :func:`best_of`, or 0.5 for all classes if there are none.

    Args:
        given: see :func:`~libra_d2.evaluation.run_thresholds.given_thresholds`; None for none.
    """
    from ..evaluation.run_thresholds import given_thresholds, thresholds_for_drawing

    def find() -> "ScoreThresholds":
        return best_of(predictions, model)

    return thresholds_for_drawing(find) if given is None else given_thresholds(given, find)
