"""The results of checking data sets, as a table, as log lines and as JSON."""

import json
import logging
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Sequence

from tabulate import tabulate

from ...utils.files import make_folder_of, replacing

_MAX_EXAMPLES = 5
_MAX_CLASSES = 20


@dataclass
class Finding:
    """One kind of finding, about `count` of the `total` images or objects of a data set."""

    # Identifies the kind of finding, such as "unreadable_images".
    check: str
    # Continues "<count> of <total> ..." and says how they are handled; without a full stop.
    text: str
    count: int
    total: int
    # A few file names, annotation ids or class names.
    examples: Sequence[Any] = ()
    # False for a note, which is worth knowing but needs no change.
    problem: bool = True
    split: str = ""
    dataset: str = ""
    # Config key -> suggested value, if a setting would help.
    settings: Dict[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> int:
        return logging.WARNING if self.problem else logging.INFO

    def line(self) -> str:
        shown = ", ".join(map(str, self.examples[:_MAX_EXAMPLES]))
        more = ", ..." if shown and self.count > len(self.examples[:_MAX_EXAMPLES]) else ""
        advice = " ".join(f'{key} "{value}"' for key, value in self.settings.items())
        return (
            f"{'problem' if self.problem else 'note'}: {self.split} {self.dataset}: "
            f"{self.count} of {self.total} {self.text}{f': {shown}{more}' if shown else ''}"
            f"{f'; set {advice}' if advice else ''}"
        )


@dataclass
class DatasetReport:
    """Figures and findings about one data set."""

    split: str
    dataset: str
    json_file: str
    image_root: str
    # Label -> figure, in the order of the rows of the table.
    figures: Dict[str, Any]
    # Class name -> number of objects.
    classes: Dict[str, int]
    # Further figures, for the JSON file only.
    details: Dict[str, Any] = field(default_factory=dict)
    findings: List[Finding] = field(default_factory=list)

    def add(self, check: str, text: str, found: Sequence[Any], total: int, **kwargs) -> None:
        """Add a finding about the images or objects `found`, unless there are none."""
        if len(found):
            examples = [str(f) for f in found[:_MAX_EXAMPLES]]
            self.findings.append(
                Finding(
                    check=check,
                    text=text,
                    count=len(found),
                    total=total,
                    examples=examples,
                    split=self.split,
                    dataset=self.dataset,
                    **kwargs,
                )
            )


@dataclass
class Report:
    datasets: List[DatasetReport]

    @property
    def findings(self) -> List[Finding]:
        """All findings, problems first."""
        found = [f for dataset in self.datasets for f in dataset.findings]
        return sorted(found, key=lambda f: not f.problem)

    @property
    def num_problems(self) -> int:
        return sum(f.problem for f in self.findings)

    def table(self, max_classes: int = _MAX_CLASSES) -> str:
        """Return a table with one column for each data set."""
        labels = list(dict.fromkeys(label for d in self.datasets for label in d.figures))
        rows = [[label, *(d.figures.get(label, "") for d in self.datasets)] for label in labels]
        total: Dict[str, int] = {}
        for d in self.datasets:
            for name, count in d.classes.items():
                total[name] = total.get(name, 0) + count
        for name in list(total)[:max_classes]:
            rows.append([f"class {name}", *(d.classes.get(name, "") for d in self.datasets)])
        if len(total) > max_classes:
            rows.append([f"({len(total) - max_classes} more classes in the report)"])
        headers = ["", *(f"{d.split}\n{d.dataset}" for d in self.datasets)]
        align = ("left", *("right" for _ in self.datasets))
        return tabulate(rows, headers=headers, disable_numparse=True, colalign=align)

    def lines(self) -> List[str]:
        notes = len(self.findings) - self.num_problems
        summary = f"{self.num_problems or 'No'} problems, {notes} notes"
        return [*(f.line() for f in self.findings), summary]

    def save(self, path: str) -> None:
        make_folder_of(path)
        content = {
            "num_problems": self.num_problems,
            "datasets": [asdict(d) for d in self.datasets],
        }
        with replacing(path) as partial, open(partial, "w", encoding="utf-8") as f:
            json.dump(content, f, indent=1)
