"""Fixtures that all tests have, and the environment in which they run."""

import atexit
import gc
import os
import shutil
import tempfile

import numpy as np
import pytest
import torch

# The built-in data set is drawn again, and nothing is left in the user's cache. Set before
# libra_d2 is imported, which registers the data set by its path. Processes that run tests at the
# same time have this cache in common.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["LIBRA_D2_CACHE"] = tempfile.mkdtemp(prefix="libra_d2-tests-")
    atexit.register(shutil.rmtree, os.environ["LIBRA_D2_CACHE"], ignore_errors=True)

pytest.register_assert_rewrite("tests.support")

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, of one core each
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


def pytest_collection_finish():
    """Do not search the imported modules for garbage again and again."""
    gc.freeze()


def pytest_xdist_auto_num_workers():
    """One more than the cores, since many tests wait for programs that they start."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Path of a detector's run folder. Tests that change it work on a copy."""
    from .inference.small_detector import write_detector  # it imports libra_d2: see above

    return write_detector(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Paths of a detector's run folder and of its ONNX file. Tests change only copies of them."""
    from .support.exported_files import write_exported

    return write_exported(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    from .support.browser import started

    with started() as browser:
        yield browser


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
