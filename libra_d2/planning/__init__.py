"""
A config that fits a training set: rules from measured statistics to settings, each with a reason.

`libra-d2 plan` and `train_net.py --plan` use it. Each rule is a function of the training set and of
a config, and its docstring says where the rule comes from.
"""

from .plan import Plan
from .planner import make_plan
from .training import plan_if_asked

__all__ = ["Plan", "make_plan", "plan_if_asked"]
