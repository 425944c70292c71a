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
        return "There were no negatives: nothing to balance."
    if counts["sampled"] == counts["all"]:
        return "Fewer negatives than the budget, so all of them are taken: nothing to balance."
    hard = {name: last[name]["hard"] for name in counts}
    if math.isnan(hard["sampled"]):
        return "No negatives were sampled."
    if abs(hard["sampled"] - hard["all"]) < _ALIKE:
        return "As many hard negatives are sampled as a random draw would take."
    if hard["sampled"] < hard["all"]:
        return "Fewer hard negatives are sampled than a random draw would take."
    return "More hard negatives are sampled than a random draw would take."


def _positives(last: Dict[str, Any]) -> str:
    mean = {name: last[name]["mean"] for name in ("all", "sampled")}
    uneven = {name: last[name]["unevenness"] for name in mean}
    if math.isnan(mean["all"]):
        return "There were no objects: nothing to balance."
    if mean["all"] == 0:
        return "No proposal fits an object: nothing to balance."
    if mean["sampled"] == mean["all"]:
        return "Fewer positives than the budget, so all of them are taken: nothing to balance."
    if math.isnan(uneven["all"]) or math.isnan(uneven["sampled"]):
        return "No image has several objects: nothing to balance between them."
    if uneven["sampled"] < uneven["all"] - _ALIKE:
        return "Objects share the positives more evenly in the sample than in all proposals."
    return "Objects share the positives no more evenly in the sample than in all proposals."


def _gradient(last: Dict[str, Any]) -> str:
    if math.isnan(last["in_use"]) or math.isnan(last["smooth_l1"]):
        return "There were no positives, or no errors: no gradient to balance."
    if abs(last["in_use"] - last["smooth_l1"]) < _ALIKE:
        return "Easy samples have the same share of the gradient as with smooth L1."
    more = "larger" if last["in_use"] > last["smooth_l1"] else "smaller"
    return f"Easy samples have a {more} share of the gradient than with smooth L1."


def _levels(last: Dict[str, Any]) -> str:
    if not last["after"]:
        return "The model has no BFP, which would balance the levels."
    before, after = measures.spread(last["before"]), measures.spread(last["after"])
    if math.isnan(before) or math.isnan(after):
        return "A level is all zeros, so that the levels cannot be compared."
    if after < before - _ALIKE:
        return "The levels are more alike after BFP."
    return "The levels are no more alike after BFP."


_CAPTIONS: Dict[str, Callable[[Dict[str, Any]], str]] = {
    "negatives": _negatives,
    "positives": _positives,
    "gradient": _gradient,
    "levels": _levels,
}
