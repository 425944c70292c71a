"""Score thresholds: from which score on a detection of a class counts."""

from dataclasses import dataclass, field
from typing import Any, Iterable, List, Mapping, Sequence

_MAX_SHOWN = 6


@dataclass(frozen=True)
class ScoreThresholds:
    """
    The lowest score at which a detection counts, for each class.

    Attributes:
        overall: threshold of the classes that are not in `classes`.
        classes: thresholds by class name.
        source: says where the thresholds come from, for messages.

    >>> thresholds = ScoreThresholds(0.5, {"cat": 0.25, "dog": 0.75}, "the analysis of a run")
    >>> thresholds.by_label(["dog", "owl"])
    [0.75, 0.5]
    >>> print(thresholds)
    0.25 (cat), 0.75 (dog)
    """

    overall: float
    classes: Mapping[str, float] = field(default_factory=dict)
    source: str = ""

    def of(self, class_name: Any) -> float:
        return self.classes.get(class_name, self.overall)

    def by_label(self, class_names: Sequence[str]) -> List[float]:
        """Return the thresholds of these classes, in their order."""
        return [self.of(name) for name in class_names]

    def without_own(self, class_names: Iterable[str]) -> List[str]:
        """Return those of the classes that have no threshold of their own."""
        return [name for name in class_names if name not in self.classes] if self.classes else []

    def note_on_missing(self, class_names: Iterable[str]) -> str:
        """
        Return a sentence that names those of the classes that have no threshold of their own; "" if
        there are none.
        """
        missing = self.without_own(class_names)
        if not missing:
            return ""
        more = f" and {len(missing) - _MAX_SHOWN} more" if len(missing) > _MAX_SHOWN else ""
        return (
            f"There is no score threshold for {', '.join(missing[:_MAX_SHOWN])}{more}. That of all "
            f"classes, {self.overall:.3g}, is used for them"
        )

    def range_text(self) -> str:
        """Return the thresholds without the names of the classes, such as "0.25 to 0.75"."""
        values = sorted(self.classes.values()) or [self.overall]
        low, high = f"{values[0]:.3g}", f"{values[-1]:.3g}"
        return low if low == high else f"{low} to {high}"

    def __str__(self) -> str:
        if len(set(self.classes.values())) < 2:
            return self.range_text()
        if len(self.classes) > _MAX_SHOWN:
            return f"{self.range_text()}, depending on the class"
        return ", ".join(f"{value:.3g} ({name})" for name, value in self.classes.items())
