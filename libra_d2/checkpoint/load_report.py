"""Report which tensors of a checkpoint were loaded, as a table for the log."""

import re
from typing import Dict, List, NamedTuple, Tuple

from tabulate import tabulate

Shape = Tuple[int, ...]

# Output layers whose number of rows depends on the number of classes.
_CLASS_LAYERS = re.compile(
    r"(cls_score|roi_heads\.box_predictor(\.\d)?\.bbox_pred|mask_head\.predictor)\.(weight|bias)$"
)


class LoadReport(NamedTuple):
    """Names of tensors, grouped by whether they were loaded."""

    loaded: List[str]
    resized: Dict[str, Tuple[Shape, Shape]]  # shapes in the file and in the model; not loaded
    skipped: List[str]  # in the file but not in the model
    missing: List[str]  # in the model but not in the file

    def new_class_layers(self) -> List[str]:
        """Modules that were not loaded because the checkpoint has another number of classes."""
        return sorted({k.rpartition(".")[0] for k in self.resized if _CLASS_LAYERS.search(k)})

    def is_complete(self) -> bool:
        return not (self.resized or self.skipped or self.missing)

    def untrained(self) -> List[str]:
        """Tensors of the model that the checkpoint lacks or has in another size."""
        keys = [*self.resized, *self.missing]
        return [k for k in keys if not k.endswith("num_batches_tracked")]

    def table(self) -> str:
        """Return a table with a row for each part of the model and a column for each outcome."""
        columns = {
            "loaded": self.loaded,
            "resized": list(self.resized),
            "skipped": self.skipped,
            "left at init": self.missing,
        }
        counts: Dict[str, List[int]] = {}
        for i, keys in enumerate(columns.values()):
            for key in keys:
                counts.setdefault(_part(key), [0] * len(columns))[i] += 1
        rows = [[part, *(n or "" for n in row)] for part, row in sorted(counts.items())]
        return tabulate(rows, headers=["tensors of", *columns], tablefmt="simple")

    def notes(self) -> List[str]:
        """Return sentences that name the tensors that were not loaded."""
        ret = []
        layers = self.new_class_layers()
        if layers:
            ret.append(
                "The checkpoint has another number of classes. These layers are trained from "
                f"scratch, all others are loaded: {', '.join(layers)}"
            )
        others = {k: v for k, v in self.resized.items() if not _CLASS_LAYERS.search(k)}
        if others:
            shapes = [
                f"{k} ({list(a)} in the file, {list(b)} here)" for k, (a, b) in others.items()
            ]
            ret.append(f"Not loaded, because the size differs: {_first(shapes)}")
        if self.skipped:
            ret.append(f"Skipped, because the model has no such tensor: {_first(self.skipped)}")
        if self.missing:
            ret.append(f"Left at their initial values: {_first(self.missing)}")
        return ret

    def details(self) -> str:
        """Return one line for each tensor."""
        lines = [f"loaded        {key}" for key in self.loaded]
        lines += [
            f"resized       {key}: {list(a)} in the file, {list(b)} in the model"
            for key, (a, b) in self.resized.items()
        ]
        lines += [f"skipped       {key}" for key in self.skipped]
        lines += [f"left at init  {key}" for key in self.missing]
        return "\n".join(lines)


def _part(key: str) -> str:
    """Return the part of the model that a tensor belongs to, such as `roi_heads.box_head`."""
    match = re.match(
        r"backbone\.(fpn\.)?(bottom_up|bfp|(?=fpn_|top_block))|[^.]+(\.[^.\d]+(?=\.))?", key
    )
    return match.group().rstrip(".") if match else key


def _first(names: List[str], count: int = 6) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
