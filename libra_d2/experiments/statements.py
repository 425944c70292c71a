"""Say in words what the interval of a difference in AP shows, and no more."""

from dataclasses import dataclass

from .results import Effect

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Evidence:
    """What a statement on a variant is based on."""

    variant: str
    baseline: str
    effect: Effect  # on AP
    num_seeds: int
    num_folds: int  # 0 without folds
    num_pairs: int
    num_missing: int  # pairs that were planned, but are not there
    num_variants: int  # that are compared with the baseline
    identical: bool


def statement(of: Evidence) -> str:
    """
    Describe the difference in AP between a variant and the baseline.

    It is called higher or lower only if the interval excludes 0; p-values that are adjusted for the
    number of variants are quoted where they contradict that.
    """
    sentences = [_result(of)]
    if of.num_pairs and of.num_seeds == 1 and not of.identical:
        sentences.append(
            "There is only one seed, so the interval contains the variation between test images "
            "alone; whether another training would show the same is not known."
        )
    if of.num_missing and of.num_pairs:
        total = of.num_pairs + of.num_missing
        sentences.append(
            f"{of.num_missing} of {total} pairs are left out, because a run has no result."
        )
    return " ".join(sentences)


def _result(of: Evidence) -> str:
    effect = of.effect
    if not of.num_pairs:
        return (
            f"{of.variant} cannot be compared with {of.baseline}: no seed and fold has a finished "
            "run of both."
        )
    if of.identical:
        return (
            f"The runs of {of.variant} and {of.baseline} have the same results, so nothing can "
            "tell them apart."
        )
    if effect.difference is None:
        return (
            f"{of.variant} cannot be compared with {of.baseline}: AP is not defined, because the "
            "test set has no objects."
        )
    if effect.low is None or effect.high is None:
        return (
            f"The difference in AP between {of.variant} and {of.baseline} is "
            f"{effect.difference:+.2f} points. There are too few test images to say how uncertain "
            "it is."
        )
    interval = f"95 % confidence interval {effect.low:+.2f} to {effect.high:+.2f}"
    if effect.low <= 0 <= effect.high:
        return (
            f"No difference in AP between {of.variant} and {of.baseline} can be seen with "
            f"{_number(of)}: {effect.difference:+.2f} points, {interval}.{_needed(of)}"
        )
    word = "higher" if effect.difference > 0 else "lower"
    return (
        f"AP of {of.variant} is {word} than that of {of.baseline} by "
        f"{abs(effect.difference):.2f} points ({interval}, {_number(of)}).{_adjusted(of)}"
    )


def _number(of: Evidence) -> str:
    seeds = f"{of.num_seeds} seed{'s' if of.num_seeds != 1 else ''}"
    return f"{seeds} on {of.num_folds} folds" if of.num_folds > 1 else seeds


def _needed(of: Evidence) -> str:
    if of.num_seeds < 2 or of.effect.difference == of.effect.low:
        return ""
    needed = of.effect.seeds_needed
    if needed is None:
        return (
            " With this spread, no feasible number of seeds would show a difference of 1 AP with "
            "80 % power: more test images may be needed."
        )
    if needed <= of.num_seeds:
        return (
            f" With this spread, {needed} seeds are enough to show a difference of 1 AP with 80 % "
            "power."
        )
    return f" With this spread, {needed} seeds would show a difference of 1 AP with 80 % power."


def _adjusted(of: Evidence) -> str:
    p = of.effect.p_adjusted
    if of.num_variants < 2 or p is None or p < SIGNIFICANCE:
        return ""
    return (
        f" Adjusted for the {of.num_variants} variants that are compared, p is {p:.3f}: the "
        "difference may be due to chance."
    )
