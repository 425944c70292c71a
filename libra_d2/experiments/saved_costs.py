"""The costs of the variants of an experiment, which are measured once and kept in its folder."""

import dataclasses
import json
import sys
from typing import Dict

from detectron2.config import CfgNode

from ..errors import UserError
from ..utils.dataclass_json import WrongValueError, from_json, json_fields
from ..utils.files import write_text
from ..utils.json_files import read_json
from .costs import measure_costs
from .design import Design
from .results import Cost

COSTS = "costs.json"


@dataclasses.dataclass(frozen=True)
class _Costs:
    variants: Dict[str, Cost]


def measure_missing_costs(design: Design, cfgs: Dict[str, CfgNode]) -> None:
    """
    Measure what the variants cost, unless that was done before. If it is not possible, for example
    because memory does not suffice, print why; the results are then written without costs.

    Args:
        cfgs: by the name of the variant.

    Raises:
        UserError: the file cannot be written.
    """
    if read_costs(design).keys() == cfgs.keys():
        return
    print("Measuring the costs of the variants", flush=True)
    try:
        costs = measure_costs(cfgs)
    except UserError as e:
        print(f"the costs of the variants cannot be measured: {e}", file=sys.stderr)
        return
    content = json.dumps(_Costs(costs), default=json_fields, allow_nan=False, indent=1)
    write_text(design.path(COSTS), content + "\n")


def read_costs(design: Design) -> Dict[str, Cost]:
    """Return the costs that were measured; {} if there are none or their file is damaged."""
    try:
        return from_json(_Costs, read_json(design.path(COSTS))).variants
    except (UserError, WrongValueError):
        return {}
