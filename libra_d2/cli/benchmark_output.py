"""The table and the JSON file that `libra-d2 benchmark` writes."""

import platform
import statistics
from dataclasses import asdict
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from tabulate import tabulate

from ..experiments.costs import STAGES, CostOptions, Measured
from ..utils.messages import printable
from ..version import __version__

Values = Sequence[float]  # one, or one for each round


def table(measured: Dict[str, Measured], devices: Dict[str, str], options: CostOptions) -> str:
    """
    Return a table with a row for each measure, and a column for each config with its ratio to the
    first one. Ratios of times are those of the same round, which drift of the machine affects less
    than the times.
    """
    configs = list(measured.values())
    headers = ["", printable(next(iter(measured)))]
    for name in list(measured)[1:]:
        headers += [printable(name), "ratio"]
    rows = [_text_row("images in a training step", [_images(m) for m in configs])]
    rows += [_row(label, values) for label, values in _costs(configs)]
    found = [_found(m) for m in configs]
    rows.append(_text_row("found in an image", found))
    lines = [
        f"{_machine(set(devices.values()))}, torch {torch.__version__}, libra_d2 {__version__}",
        f"Median of {options.repeats} rounds (quartiles). Made-up images, random weights.",
    ]
    if len(measured) > 1:
        lines[-1] += f" Ratios to {headers[1]}."
    lines += ["", tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)]
    for name, m in measured.items():
        for what, error in (("FLOPs", m.flops_error), ("memory", m.memory_error)):
            if error:
                lines.append(printable(f"{name}: {what}: {error}"))
    return "\n".join(lines)


def as_json(
    measured: Dict[str, Measured], devices: Dict[str, str], options: CostOptions
) -> Dict[str, Any]:
    """Return all measurements of all rounds, in seconds, bytes and pixels."""
    return {
        "libra_version": __version__,
        "torch_version": torch.__version__,
        "threads": torch.get_num_threads(),
        "options": asdict(options),
        "configs": {
            name: {"device": _device_name(devices[name]), **asdict(m), "found": m.found._asdict()}
            for name, m in measured.items()
        },
    }


def _costs(configs: List[Measured]) -> List[Tuple[str, List[Optional[Values]]]]:
    """The rows: a label and the values of each config, None where there are none."""
    seconds = [m.step_seconds for m in configs]
    of_image = [m.inference_seconds for m in configs]
    step, scale = ("s", 1.0) if max(map(statistics.median, seconds)) >= 1 else ("ms", 1e3)
    rows: List[Tuple[str, List[Optional[Values]]]] = [
        ("parameters, M", [[m.parameters / 1e6] for m in configs]),
        ("FLOPs of an image, G", [_single(m.flops, 1e9) for m in configs]),
        (f"training step, {step}", [[scale * v for v in values] for values in seconds]),
        ("peak memory of a step, MB", [_single(m.peak_memory, 1e6) for m in configs]),
        ("inference of an image, ms", [[1e3 * v for v in values] for values in of_image]),
    ]
    for stage in (s for s in STAGES if any(s in m.stage_seconds for m in configs)):
        times = [m.stage_seconds.get(stage) for m in configs]
        rows.append((f"- {stage}", [None if t is None else [1e3 * v for v in t] for t in times]))
    sums = [[1e3 * sum(times) for times in zip(*m.stage_seconds.values())] for m in configs]
    rows.append(("sum of the stages, ms", [*sums]))
    return rows


def _single(value: Optional[int], unit: float) -> Optional[Values]:
    return None if value is None else [value / unit]


def _row(label: str, values: List[Optional[Values]]) -> List[str]:
    first, *others = values
    row = [label, _spread(first)]
    for other in others:
        both = first is not None and other is not None
        ratios = [b / a for a, b in zip(first or (), other or ()) if a] if both else None
        row += [_spread(other), _spread(ratios or None)]
    return row


def _text_row(label: str, texts: List[str]) -> List[str]:
    first, *others = texts
    return [label, first, *(cell for text in others for cell in (text, ""))]


def _spread(values: Optional[Values]) -> str:
    if values is None:
        return "-"
    if len(values) == 1:
        return _number(values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{_number(median)} ({_number(low)} .. {_number(high)})"


def _number(value: float) -> str:
    """With three significant digits, but never in scientific notation."""
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def _images(m: Measured) -> str:
    height, width = m.train_shape
    text = f"{m.step_images} of {height}x{width}"
    height, width = m.test_shape
    return text if m.test_shape == m.train_shape else f"{text}, test {height}x{width}"


def _found(m: Measured) -> str:
    text = f"{m.found.detections} detections"
    return text if m.found.proposals is None else f"{m.found.proposals} proposals, {text}"


def _machine(devices: Any) -> str:
    names = ", ".join(sorted(map(_device_name, devices)))
    threads = torch.get_num_threads()
    return f"{names}, {threads} {'thread' if threads == 1 else 'threads'}"


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return f"{device} ({platform.machine()})"
