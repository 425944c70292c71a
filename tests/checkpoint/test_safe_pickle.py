import codecs
import contextlib
import os
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from libra_d2.checkpoint import read_checkpoint
from libra_d2.checkpoint.safe_pickle import load_pkl, load_pth
from libra_d2.errors import UserError

from ..support.programs import run_python


class Evil:
    """Writes a file when Python's own unpickler reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture(params=["open", "eval", "os", "array", "compressed"])
def malicious(request, tmp_path):
    """
    A checkpoint that runs code in one of several ways, and the file that the code would write.
    """
    written = str(tmp_path / "written")

    class Eval:
        def __reduce__(self):
            return eval, (f"open({written!r}, 'w')",)

    class System:
        def __reduce__(self):
            return os.system, (f"touch {written}",)

    class InState:
        def __reduce__(self):
            return np.dtype, ("f4",), Evil(written)

    class Codec:
        def __reduce__(self):
            return codecs.encode, (Evil(written), "zlib")

    evil = {
        "open": Evil(written),
        "eval": Eval(),
        "os": System(),
        "array": InState(),
        "compressed": Codec(),
    }[request.param]
    return {"model": {"weight": np.zeros(2)}, "__author__": evil}, tmp_path, written


def test_the_malicious_pickles_work(malicious):
    """Otherwise the tests below would prove nothing."""
    content, _, written = malicious
    with contextlib.suppress(Exception):
        pickle.loads(pickle.dumps(content))
    assert os.path.exists(written)


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".pyth"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_is_refused_and_does_not_run(malicious, suffix, protocol):
    content, folder, written = malicious
    path = folder / f"m{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    else:
        torch.save({**content, "model": {"weight": torch.zeros(2)}}, path, pickle_protocol=protocol)
    with pytest.raises(UserError, match=rf"cannot read the checkpoint .*m\{suffix}"):
        read_checkpoint(str(path))
    assert not os.path.exists(written)


FORGED_POINTERS = [
    # An array of objects made of bytes, and one whose type claims to hold none.
    """
class A:
    def __reduce__(self): return np.ndarray, ((1,), np.dtype("O"), b"A" * 8)
""",
    """
class D:
    def __reduce__(self):
        fields = {"x": (np.dtype("O"), 0)}
        return np.dtype, ("V8", False, True), (3, "|", None, ("x",), fields, 8, 1, 0)
class A:
    def __reduce__(self): return _frombuffer, (b"A" * 8, D(), (1,), "C")
""",
]


@pytest.mark.slow
@pytest.mark.parametrize("attack", FORGED_POINTERS)
def test_bytes_do_not_become_pointers(tmp_path, attack):
    """Accessing such objects can crash the process, so the test reads them in a subprocess."""
    code = f"""
import pickle, numpy as np
from numpy._core.numeric import _frombuffer
from libra_d2.checkpoint.safe_pickle import load_pkl
{attack}
class S:
    def __reduce__(self): return set, (A(),)
open({str(tmp_path / "m.pkl")!r}, "wb").write(pickle.dumps({{"model": S()}}))
try:
    load_pkl({str(tmp_path / "m.pkl")!r})
except ValueError as e:
    print("refused:", e)
"""
    run = run_python("-c", code)
    assert run.returncode == 0, run.stderr[-500:]
    assert "refused: cannot read the checkpoint" in run.stdout


def test_numbers_and_arrays_of_numpy_in_a_pth(tmp_path):
    content = {"iteration": np.int64(4), "model": {"a": np.arange(6.0).reshape(2, 3)}}
    torch.save(content, tmp_path / "m.pth")
    loaded = load_pth(str(tmp_path / "m.pth"))
    assert loaded["iteration"] == 4 and np.array_equal(loaded["model"]["a"], content["model"]["a"])


def test_message_names_what_was_asked_for(tmp_path):
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Evil(str(tmp_path / "written"))))
    torch.save(Evil(str(tmp_path / "written")), tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"asks for io\.open, but only arrays"):
        load_pkl(str(tmp_path / "m.pkl"))
    with pytest.raises(UserError, match=r"asks for io\.open, but only tensors"):
        load_pth(str(tmp_path / "m.pth"))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_and_containers_pass(tmp_path, protocol):
    content = {
        "model": {"w": np.random.rand(2, 3).astype(np.float32), "n": np.int64(3), "e": np.zeros(0)},
        "lists": [1, 2.5, "text", None, True, (b"bytes", {4})],
        "f": np.asfortranarray(np.random.rand(3, 2)),
    }
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    loaded = load_pkl(str(tmp_path / "m.pkl"))
    assert loaded["lists"] == content["lists"]
    for key, value in content["model"].items():
        assert np.array_equal(loaded["model"][key], value)
        assert loaded["model"][key].dtype == value.dtype
    assert np.array_equal(loaded["f"], content["f"])


def test_a_pickle_of_python_2_passes(tmp_path):
    """Files of Caffe2 in Detectron's model zoo contain byte strings, and arrays as raw bytes."""
    text = (
        b"(dp0\nS'conv1_w'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n"
        b"(I0\ntS'b'\ntRp4\n(I1\n(I2\ntcnumpy\ndtype\np5\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\n"
        b"NNNI-1\nI-1\nI0\ntbI00\nS'\\x07\\xff'\ntbs."
    )
    (tmp_path / "m.pkl").write_bytes(text)
    assert load_pkl(str(tmp_path / "m.pkl"))["conv1_w"].tolist() == [7, 255]


def test_training_logs_of_mmengine_pass_as_nothing(tmp_path, monkeypatch):
    """Checkpoints of mmdetection 3.x contain the training logs, as objects with methods."""

    class HistoryBuffer:
        def __init__(self):
            self._log_history = np.arange(3.0)
            self._count_history = np.arange(3)
            self._statistics_methods = {"mean": HistoryBuffer.mean}

        def mean(self):
            raise AssertionError("ran")

    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    HistoryBuffer.__module__ = module.__name__
    HistoryBuffer.__qualname__ = "HistoryBuffer"
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    HistoryBuffer.mean.__module__ = module.__name__
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    logs = {"log_scalars": {"train/loss": HistoryBuffer()}, "last": np.float64(2)}
    torch.save({"state_dict": {"w": torch.ones(2)}, "message_hub": logs}, tmp_path / "m.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "m.pth", weights_only=True)
    assert torch.equal(load_pth(str(tmp_path / "m.pth"))["state_dict"]["w"], torch.ones(2))
    # ... and only within that file
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "m.pth", weights_only=True)
