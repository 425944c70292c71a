"""
Plan a config that fits a training set.

Rules derive settings, each with a reason, from statistics of the training set. Each rule is a
function of the training set and a config, and its docstring says where the rule comes from. The
commands `libra-d2 plan` and `train_net.py --plan` use this package.
"""

from .plan import Plan
from .planner import make_plan
from .training import plan_if_asked

__all__ = ["Plan", "make_plan", "plan_if_asked"]
