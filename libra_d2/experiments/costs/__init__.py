"""What a config costs: parameters, operations, time and memory, measured on made-up images."""

from .measuring import CostOptions, Measured, measure, measure_costs
from .stages import STAGES

__all__ = ["STAGES", "CostOptions", "Measured", "measure", "measure_costs"]
