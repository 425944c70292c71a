import pytest

from libra_d2.engine import load_cfg, setup
from libra_d2.errors import UserError

from ..support.setup_arguments import arguments


@pytest.mark.parametrize(
    "opts,named",
    [
        (
            ["MODEL.BFP.REFINE_LEVL", "p3"],
            "MODEL.BFP.REFINE_LEVL; did you mean MODEL.BFP.REFINE_LEVEL",
        ),
        (["MODEL.BFP.REFINE_LEVEL"], "KEY VALUE"),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER"),
    ],
)
def test_mistakes_on_the_command_line_are_named(opts, named):
    with pytest.raises(UserError, match=named):
        load_cfg("configs/libra_r50.yaml", opts)


@pytest.mark.parametrize(
    "text,named",
    [
        ("MODEL:\n  BPF:\n    ENABLED: False\n", r"config\.yaml: unknown config key MODEL\.BPF"),
        ("MODEL: [1, 2\n", r"config file .*config\.yaml"),
        ("_BASE_: nothing.yaml\n", r"nothing\.yaml"),
        ("SOLVER:\n  MAX_ITER: many\n", r"config\.yaml.*SOLVER\.MAX_ITER"),
        ("OUTPUT_DIR: !!python/object/apply:os.getcwd []\n", r"config file .*config\.yaml"),
    ],
)
def test_mistakes_in_a_config_file_are_named(tmp_path, text, named):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=named):
        load_cfg(str(path))


def test_missing_config_file_is_named():
    with pytest.raises(UserError, match=r"no/such\.yaml"):
        load_cfg("no/such.yaml")


def test_setup_saves_a_config_that_can_be_used_again(tmp_path):
    cfg = setup(arguments(tmp_path))
    saved = load_cfg(str(tmp_path / "out" / "config.yaml"))
    assert saved.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert tuple(saved.DATASETS.CLASS_NAMES) == ("cat", "dog")
    assert cfg.MODEL.DEVICE == saved.MODEL.DEVICE and cfg.is_frozen()
    # Saved as configured: the file may go to a machine with a GPU.
    assert "DEVICE: cuda" in (tmp_path / "out" / "config.yaml").read_text()


@pytest.mark.parametrize(
    "opts,named",
    [
        ("SOLVER.AMP.ENABLED True", r"SOLVER\.AMP\.DTYPE float16 needs a CUDA device"),
        ("SOLVER.AMP.ENABLED True SOLVER.AMP.DTYPE half", r"DTYPE must be one of .*, got 'half'"),
        ("SOLVER.ACCUMULATION_STEPS 0", r"SOLVER\.ACCUMULATION_STEPS must be at least 1, got 0"),
        (
            "SOLVER.IMS_PER_BATCH 6 SOLVER.ACCUMULATION_STEPS 4",
            r"SOLVER\.ACCUMULATION_STEPS must divide the 6 images .*, got 4",
        ),
        (
            "SOLVER.IMS_PER_BATCH 6 SOLVER.REFERENCE_WORLD_SIZE 4",
            r"IMS_PER_BATCH must be a multiple of the number of processes, 4, got 6",
        ),
        (
            "SOLVER.IMS_PER_BATCH 8 SOLVER.REFERENCE_WORLD_SIZE 4 SOLVER.ACCUMULATION_STEPS 4",
            r"must divide the 2 images per process \(of SOLVER\.IMS_PER_BATCH 8\), got 4",
        ),
    ],
)
def test_a_step_that_cannot_be_computed_is_refused(tmp_path, opts, named):
    with pytest.raises(UserError, match=named):
        setup(arguments(tmp_path, "MODEL.DEVICE", "cpu", *opts.split()))


def test_bfloat16_on_the_cpu_is_allowed(tmp_path):
    opts = "MODEL.DEVICE cpu SOLVER.AMP.ENABLED True SOLVER.AMP.DTYPE bfloat16".split()
    assert setup(arguments(tmp_path, *opts)).SOLVER.AMP.DTYPE == "bfloat16"


def test_number_of_classes_in_the_options_must_fit(tmp_path):
    with pytest.raises(UserError, match="NUM_CLASSES must be 2, got 80: "):
        setup(arguments(tmp_path, "MODEL.ROI_HEADS.NUM_CLASSES", "80"))


@pytest.mark.parametrize("check", [True, False])
def test_data_are_checked_before_training_unless_switched_off(tmp_path, check):
    setup(arguments(tmp_path, "DATASETS.CHECK", str(check)))
    assert (tmp_path / "out" / "data_check.json").is_file() == check
