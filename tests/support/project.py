"""Files of the project, golden values, and how close values must be to them."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent


def shared_data() -> Path:
    """Optional files beside the checkout: real images and the full golden values."""
    return Path(os.environ.get("LIBRA_D2_TEST_DATA") or ROOT.parent / "shared")


def load_tool(name: str):
    """A script of tools/, which is no package, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden_folder() -> Path:
    return TESTS / "golden"


class Golden:
    """Cases of tests/golden, or of the full set of golden values if that is at hand."""

    def __init__(self, stem: str):
        folder = shared_data() / "golden"
        if not (folder / f"{stem}.npz").is_file():
            folder = TESTS / "golden"
        self.cases = json.loads((folder / f"{stem}.json").read_text())
        self._arrays = np.load(folder / f"{stem}.npz")

    def array(self, case: str, name: str) -> torch.Tensor:
        return torch.from_numpy(self._arrays[f"{case}/{name}"])

    def parameters(self, case: str) -> dict:
        prefix = f"{case}/param/"
        return {
            key[len(prefix) :].replace(".conv.", "."): torch.from_numpy(self._arrays[key])
            for key in self._arrays.files
            if key.startswith(prefix)
        }

    def of_kind(self, kind: str) -> list:
        return [pytest.param(c, id=c["name"]) for c in self.cases if c["kind"] == kind]


def assert_close(actual, expected, tolerance):
    """Largest absolute difference."""
    difference = (actual - expected).abs().max().item() if actual.numel() else 0.0
    assert actual.shape == expected.shape
    assert difference <= tolerance, f"differs by {difference:.2e}, more than {tolerance:.0e}"
