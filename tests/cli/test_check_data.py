import json

import pytest

from libra_d2.cli.main import main

from ..support.coco_files import write_dataset
from ..support.data_checks import both_classes


def check_data(tmp_path, files, *args):
    return main(
        [
            *("check-data", "--config-file", "configs/libra_mobilenet_v2.yaml", *args),
            *("DATASETS.TRAIN", f"coco:{files[0]},{files[1]}"),
            *("OUTPUT_DIR", str(tmp_path / "out")),
        ]
    )


def test_good_data(tmp_path, capsys):
    assert check_data(tmp_path, both_classes(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "No problems" in out and "class cat" in out and "sqrt(area)" in out
    assert json.loads((tmp_path / "out/data_check.json").read_text())["num_problems"] == 0
    assert not (tmp_path / "out/config.yaml").exists()  # the one of a training run stays


def test_problems_are_lines_under_the_table(tmp_path, capsys):
    files = write_dataset(tmp_path, [(10, 10, 20, 20), (50, 30, 20, 20)])
    assert check_data(tmp_path, files, "--report", str(tmp_path / "report.json")) == 1
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "clipped" in line]
    assert line.startswith("problem: train coco_") and "3 of 6 boxes" in line
    assert line.endswith("(annotation ids): 2, 4, 6")
    assert json.loads((tmp_path / "report.json").read_text())["num_problems"] == 2


@pytest.mark.parametrize(
    "args,named",
    [
        (("DATASETS.TRAIN", "coco:none.json,."), "none.json does not exist"),
        (("MODEL.ROI_HEADS.NUM_CLASSES", "80"), "NUM_CLASSES must be 2, got 80: "),
        (("DATASETS.TRAIN_FORM", "x"), "did you mean DATASETS.TRAIN"),
        (("DATASETS.TRAIN", "()", "DATASETS.TEST", "()"), "TEST must name the data to check"),
        (("--report", "/dev/null/x.json"), "/dev/null/x.json cannot be written: "),
    ],
)
def test_a_users_mistake_is_one_line(tmp_path, capsys, args, named):
    files = both_classes(tmp_path)
    options = ["DATASETS.TRAIN", f"coco:{files[0]},{files[1]}"]
    config = ["--config-file", "configs/libra_mobilenet_v2.yaml"]
    output = ["OUTPUT_DIR", str(tmp_path / "out"), "DATASETS.TEST", "()"]
    assert main(["check-data", *config, *options, *output, *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("libra-d2 check-data: ") and named in error
    assert error.count("\n") == 1
