"""Make a plan from a training set and a base config."""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ..config.flattening import set_value, value_at
from ..config.schedule import KEYS
from ..data.epochs import in_iterations
from ..errors import UserError
from .anchors import plan_anchors
from .input_size import plan_input_size
from .limits import plan_detections, plan_nms, plan_positives, plan_proposals
from .plan import Plan, PlannedSetting
from .sampling import plan_any_orientation, plan_repeat_factors
from .schedule import Costs, plan_batch, plan_length, plan_memory, plan_precision
from .settings import Advice, Note, Setting
from .training_set import TrainingSet

Measure = Callable[[CfgNode], Costs]

# Each rule sees the settings of the rules before it.
DATA_RULES = (
    plan_input_size,
    plan_anchors,
    plan_detections,
    plan_proposals,
    plan_positives,
    plan_nms,
    plan_repeat_factors,
    plan_batch,
)
# Rules whose settings only work together, and further keys that set the same thing. If the user has
# given any of these keys, the plan sets none of the rule's.
COUPLED: Dict[Callable[..., Advice], Tuple[str, ...]] = {
    plan_any_orientation: (),
    plan_input_size: (
        "INPUT.MIN_SIZE_TRAIN",
        "INPUT.MAX_SIZE_TRAIN",
        "INPUT.MIN_SIZE_TEST",
        "INPUT.MAX_SIZE_TEST",
    ),
    plan_anchors: (),
    plan_batch: (),
    plan_precision: (),
}


def make_plan(
    cfg: CfgNode,
    *,
    given: Sequence[str] = (),
    measure: Optional[Measure] = None,
    mixed_dtype: str = "",
    budget: Optional[float] = None,
    any_orientation: bool = False,
    base_iterations: int = 0,
) -> Plan:
    """
    Plan the settings for the registered data sets of a config.

    Args:
        cfg: base config, after :func:`~libra_d2.data.setup_datasets`. It is not changed.
        given: keys that the user has set, which the plan keeps.
        measure: function that measures training steps with a config, or None to plan without
            measurements.
        mixed_dtype: "float16" or "bfloat16" to measure whether mixed precision is faster, or "" to
            plan without it.
        budget: seconds for the whole run. It requires `measure`.
        any_orientation: whether the images have no up and down.
        base_iterations: `SOLVER.MAX_ITER` of the base config without the keys of the user, to which
            its `SOLVER.STEPS` belong.

    Raises:
        UserError: there are no objects to plan for, or both `SOLVER.EPOCHS` and `budget` set the
            length of the run.
    """
    epochs = cfg.SOLVER.EPOCHS
    if epochs and budget is not None:
        raise UserError(
            f"--time and SOLVER.EPOCHS {epochs:g} both set the length of the run. Choose one: "
            "leave out --time, or set SOLVER.EPOCHS 0.0"
        )
    data = TrainingSet.of(cfg)
    planner = _Planner(data, cfg, given)
    if any_orientation:
        planner.follow(plan_any_orientation, data, planner.cfg)
    for rule in DATA_RULES:
        planner.follow(rule, data, planner.cfg)

    costs = measure(planner.cfg) if measure else None
    mixed = None
    if measure and mixed_dtype and not planner.cfg.SOLVER.AMP.ENABLED:
        changed = planner.cfg.clone()
        changed.SOLVER.AMP.ENABLED, changed.SOLVER.AMP.DTYPE = True, mixed_dtype
        mixed = measure(changed)
        planner.follow(plan_precision, costs, mixed, mixed_dtype)
    if planner.cfg.SOLVER.AMP.ENABLED and mixed is not None:
        costs = mixed
    planner.take(plan_memory(planner.cfg, costs))
    if epochs:
        planner.take([Note(f"SOLVER.EPOCHS {epochs:g} is kept, so the schedule is not planned")])
        return planner.plan()
    # Shares, such as "75%", are of the user's length already.
    steps_of_base = "SOLVER.STEPS" not in given and planner.cfg.SOLVER.STEPS == cfg.SOLVER.STEPS
    planner.take(
        plan_length(
            data,
            planner.cfg,
            num_test_images=sum(len(DatasetCatalog.get(name)) for name in cfg.DATASETS.TEST),
            costs=costs,
            budget=budget,
            length_is_given="SOLVER.MAX_ITER" in given,
            steps_for=base_iterations if steps_of_base else 0,
        )
    )
    return planner.plan()


class _Planner:
    """Collects settings, and applies them to a copy of the base config."""

    def __init__(self, data: TrainingSet, base: CfgNode, given: Sequence[str]):
        self.data = data
        # The rules need iterations. The values of the user keep their form, such as "70%".
        self.base = base
        self.cfg = (base if base.SOLVER.EPOCHS else in_iterations(base)).clone()
        self.cfg.defrost()
        self._texts = {key for key in KEYS if value_at(base, key) != value_at(self.cfg, key)}
        self._given = set(given)
        self._settings: List[Setting] = []
        self._notes: List[str] = []

    def follow(self, rule: Callable[..., Advice], *args: Any, **kwargs: Any) -> None:
        """Apply what a rule advises, except for what the user has given."""
        advice = rule(*args, **kwargs)
        if rule not in COUPLED or not self._is_given(advice, COUPLED[rule]):
            self.take(advice)

    def take(self, advice: Advice) -> None:
        for item in advice:
            if isinstance(item, Note):
                self._notes.append(item.text)
            elif self._is_given([item]):
                continue
            elif self._changes(item) or item.key in self._texts:
                set_value(self.cfg, item.key, item.value)
                self._settings = [s for s in self._settings if s.key != item.key] + [item]

    def _is_given(self, advice: Advice, further: Sequence[str] = ()) -> bool:
        """
        Return whether the user has given a key that the advice would change, or a further one. If
        so, add a note.
        """
        changed = [item for item in advice if isinstance(item, Setting) and self._changes(item)]
        keys = dict.fromkeys([*(s.key for s in changed), *further])
        given = [f"{key} {value_at(self.base, key)}" for key in keys if key in self._given]
        if not changed or not given:
            return False
        planned = ", ".join(f"{s.key} {s.value}" for s in changed)
        self._notes.append(
            f"you gave {' and '.join(given)}, so the plan does not set {planned} ({changed[0].why})"
        )
        return True

    def _changes(self, setting: Setting) -> bool:
        cfg = self.base if setting.key in self._given else self.cfg
        return value_at(cfg, setting.key) != setting.value

    def plan(self) -> Plan:
        given = [
            Setting(key, value_at(self.base, key), "given by the user")
            for key in sorted(self._given)
        ]
        settings = [
            PlannedSetting(s.key, value_at(self.base, s.key), s.value, s.why)
            for s in self._settings
        ]
        return Plan(self.data, self.cfg, given, settings, self._notes)
