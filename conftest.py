"""Files that the examples in docstrings read."""

import pytest

WITH_FILES = ("libra_d2.inference.predictor.Predictor", "libra_d2.serving.predictor.Predictor")


@pytest.fixture(autouse=True)
def files_of_examples(request):
    """Write a tiny trained detector and an image to the working folder of those `WITH_FILES`."""
    if request.node.name not in WITH_FILES:
        return
    from PIL import Image

    from tests.inference.small_detector import blots, write_detector

    folder = request.getfixturevalue("tmp_path")
    (folder / "output" / "run").mkdir(parents=True)
    write_detector(folder / "output" / "run")
    Image.fromarray(blots(0)).save(folder / "photo.jpg")
    request.getfixturevalue("monkeypatch").chdir(folder)
    if "serving" in request.node.name:
        from libra_d2.export import export_detector
        from libra_d2.inference.trained_detector import load_detector

        export_detector(load_detector("output/run"), "onnx", "detector.onnx", [blots(0)])
