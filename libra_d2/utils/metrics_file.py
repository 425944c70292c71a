"""Read `metrics.json`, into which a run writes its scalars."""

import json
from typing import Any, Dict, List


def read_metrics(path: str) -> List[Dict[str, Any]]:
    """
    Read the scalars of a run.

    Where iterations go back, the run was resumed or restarted, and its new values replace the old
    ones. Lines that are not complete, as a killed run leaves them, are skipped.

    Args:
        path: `metrics.json`, one JSON object a line.

    Returns:
        The scalars by name, with "iteration", in the order of the iterations.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, encoding="utf-8", errors="replace") as f:
        lines = f.read().splitlines()
    records: List[Dict[str, Any]] = []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, dict) or type(record.get("iteration")) is not int:
            continue
        while records and records[-1]["iteration"] > record["iteration"]:
            records.pop()
        if records and records[-1]["iteration"] == record["iteration"]:
            records[-1].update(record)  # Detectron2 writes the metrics of an evaluation separately
        else:
            records.append(record)
    return records
