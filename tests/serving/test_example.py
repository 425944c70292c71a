"""The example of an application in a server of its own."""

import importlib.util

import pytest
from fastapi.testclient import TestClient

from libra_d2.errors import UserError

from ..support.project import ROOT
from .uploads import png


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("app", ROOT / "examples" / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", [0, 1], ids=["run", "onnx"])
def test_it_serves_the_model_of_the_environment(example, exported, kind, monkeypatch):
    monkeypatch.setenv("LIBRA_D2_MODEL", exported[kind])
    monkeypatch.setenv("LIBRA_D2_TOKEN", "s3cret")
    with TestClient(example.create()) as client:
        files = {"image": ("a.png", png(0))}
        assert client.post("/detect", files=files).status_code == 401
        right = {"Authorization": "Bearer s3cret"}
        assert client.post("/detect", files=files, headers=right).json()["a.png"]["predictions"]


def test_no_model(example, monkeypatch):
    monkeypatch.delenv("LIBRA_D2_MODEL", raising=False)
    with pytest.raises(UserError):
        example.create()
