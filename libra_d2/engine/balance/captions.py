"""Sentences that describe what the panels of the balance picture show."""

import math
from typing import Any, Callable, Dict

from . import measures as measures

_ALIKE = 0.01  # smaller differences are not visible in the picture


def caption(kind: str, last: Dict[str, Any]) -> str:
    """
    Describe a panel in one sentence.

    Args:
        kind: "negatives", "positives", "gradient" or "levels".
        last: the value of this kind in the result of :meth:`BalanceProbe.measurement`.
    """
    return _CAPTIONS[kind](last)


def _negatives(last: Dict[str, Any]) -> str:
    counts = {name: sum(last[name]["counts"]) for name in ("all", "sampled")}
    if not counts["all"]:
        return "There were no negatives, so there was nothing to balance."
    if counts["sampled"] == counts["all"]:
        return "There were fewer negatives than may be sampled, so all of them are used."
    hard = {name: last[name]["hard"] for name in counts}
    if math.isnan(hard["sampled"]):
        return "No negatives were sampled."
    if abs(hard["sampled"] - hard["all"]) < _ALIKE:
        return "The sampler selects as many hard negatives as random sampling would."
    if hard["sampled"] < hard["all"]:
        return "The sampler selects fewer hard negatives than random sampling would."
    return "The sampler selects more hard negatives than random sampling would."


def _positives(last: Dict[str, Any]) -> str:
    mean = {name: last[name]["mean"] for name in ("all", "sampled")}
    uneven = {name: last[name]["unevenness"] for name in mean}
    if math.isnan(mean["all"]):
        return "There were no objects, so there was nothing to balance."
    if mean["all"] == 0:
        return "No proposal matched an object, so there was nothing to balance."
    if mean["sampled"] == mean["all"]:
        return "There were fewer positives than may be sampled, so all of them are used."
    if math.isnan(uneven["all"]) or math.isnan(uneven["sampled"]):
        return "No image has several objects, so there was nothing to balance."
    if uneven["sampled"] < uneven["all"] - _ALIKE:
        return "Sampling distributes the positives more evenly over the objects."
    return "Sampling does not distribute the positives more evenly over the objects."


def _gradient(last: Dict[str, Any]) -> str:
    if math.isnan(last["in_use"]) or math.isnan(last["smooth_l1"]):
        return "There were no positives or no errors, so there was no gradient to balance."
    if abs(last["in_use"] - last["smooth_l1"]) < _ALIKE:
        return "Easy samples contribute as much to the gradient as with smooth L1."
    more = "more" if last["in_use"] > last["smooth_l1"] else "less"
    return f"Easy samples contribute {more} to the gradient than with smooth L1."


def _levels(last: Dict[str, Any]) -> str:
    if not last["after"]:
        return "The model has no BFP to balance the levels."
    before, after = measures.spread(last["before"]), measures.spread(last["after"])
    if math.isnan(before) or math.isnan(after):
        return "The activations of a level are all zero, so the levels cannot be compared."
    if after < before - _ALIKE:
        return "BFP makes the levels more similar."
    return "BFP does not make the levels more similar."


_CAPTIONS: Dict[str, Callable[[Dict[str, Any]], str]] = {
    "negatives": _negatives,
    "positives": _positives,
    "gradient": _gradient,
    "levels": _levels,
}
