"""The example of an HTTP service, as its clients see it."""

import importlib.util
import io
import json
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import libra_d2
from libra_d2.predictions.detections import Detections

from ..support.detector_runs import write_run
from ..support.project import ROOT

testclient = pytest.importorskip("fastapi.testclient")
LIMIT = 200_000


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return libra_d2.Predictor(write_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def client(predictor):
    spec = importlib.util.spec_from_file_location("app", ROOT / "examples" / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    with testclient.TestClient(
        app.create_app(predictor, max_bytes=LIMIT, max_pixels=1_000_000)
    ) as client:
        yield client


def png(seed, size=(60, 80)):
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    stored = io.BytesIO()
    Image.fromarray(noise).save(stored, "png")
    return stored.getvalue()


def entry(predictor, content):
    found = Detections.from_instances(predictor(content))
    return found.entry(predictor.class_names, predictor.category_ids)


def post(client, content, name="a.png", query=""):
    return client.post(f"/detect{query}", files={"image": (name, content)})


def test_entry_of_an_image(client, predictor):
    response = post(client, png(0))
    assert response.status_code == 200
    expected = entry(predictor, png(0))
    assert response.json() == json.loads(json.dumps(expected))
    assert response.json()["height"] == 60 and response.json()["width"] == 80
    assert response.json()["predictions"], "no detections: nothing is compared"


def test_concurrent_requests_get_their_own_answers(client, predictor):
    images = [png(seed, (40 + 8 * seed, 64)) for seed in range(5)]
    expected = [entry(predictor, image) for image in images]
    assert len({str(e) for e in expected}) == 5
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda image: post(client, image), images * 5))
    assert [r.json() for r in responses] == expected * 5


def test_health_and_the_threshold_of_a_request(client, predictor):
    assert client.get("/health").json() == {"status": "ok", "classes": list(predictor.class_names)}
    every = post(client, png(0)).json()["predictions"]
    scores = [p["score"] for p in every]
    middle = sorted(scores)[len(scores) // 2]
    response = post(client, png(0), query=f"?score_threshold={middle!r}")
    assert response.status_code == 200
    assert response.json()["predictions"] == [p for p in every if p["score"] >= middle]
    assert 0 < len(response.json()["predictions"]) < len(every)


@pytest.mark.parametrize(
    "query, words",
    [
        ("?score_treshold=0.5", "must be one of score_threshold, got 'score_treshold'"),
        ("?score_threshold=1.5", "in [0, 1]"),
        ("?score_threshold=nan", "in [0, 1]"),
        ("?score_threshold=high", "in [0, 1]"),
        ("?score_threshold=", "in [0, 1]"),
        ("?score_threshold=0.4&score_threshold=0.5", "one number"),
        ("?score_threshold=0.01", "at least 0.02, the threshold of this service, got 0.01"),
    ],
)
def test_mistakes_in_the_query_are_refused(client, predictor, monkeypatch, query, words):
    monkeypatch.setattr(predictor, "score_threshold", 0.02)
    response = post(client, png(0), query=query)
    assert response.status_code == 422 and words in response.json()["detail"]


@pytest.mark.parametrize("length", ["x", "-5", "1e3"])
def test_a_length_that_is_no_number(client, length):
    response = client.post("/detect", content=b"", headers={"Content-Length": length})
    assert 400 <= response.status_code < 500


def run_app(*args):
    command = [sys.executable, str(ROOT / "examples" / "app.py"), *map(str, args)]
    return subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT)


def test_it_serves_until_it_is_told_to_end(tmp_path):
    """A wrong model is one line; after SIGTERM it ends without a stack trace."""
    wrong = run_app("--model", tmp_path / "no")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    (tmp_path / "run").mkdir()
    right = run_app("--model", write_run(tmp_path / "run"), "--port", port)
    try:
        _, err = wrong.communicate(timeout=120)
        assert wrong.returncode == 2 and "does not exist" in err.splitlines()[-1]
        assert "Traceback" not in err
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as f:
                    assert json.load(f)["status"] == "ok"
                break
            except OSError:
                assert right.poll() is None, right.stderr.read()
                time.sleep(0.1)
        right.send_signal(signal.SIGTERM)
        _, err = right.communicate(timeout=30)
        assert "Traceback" not in err and "shutdown complete" in err
        assert right.returncode in (0, -signal.SIGTERM)
    finally:
        for process in (wrong, right):
            process.kill()


def test_too_large_by_its_declared_length(client):
    response = post(client, b"\0" * (LIMIT + 1))
    assert response.status_code == 413 and str(LIMIT) in response.json()["detail"]


def test_too_large_without_a_declared_length(client):
    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield b"\0" * (LIMIT // 10)

    response = client.post(
        "/detect", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert "content-length" not in response.request.headers
    assert response.status_code == 413


def test_pixel_bombs_are_refused_by_their_header(client):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    for side in (2000, 100_000):  # over the limit of the service, and over that of Pillow
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
        assert post(client, bomb).status_code in (413, 415)


def eps():
    stored = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stored, "eps")
    return stored.getvalue()


@pytest.mark.parametrize(
    "content, status",
    [
        pytest.param(b"", 415, id="empty"),
        pytest.param(b"not an image", 415, id="text"),
        pytest.param(eps(), 415, id="of a format that runs programs"),
        pytest.param(png(0)[:3000], 422, id="cut off"),
        pytest.param(png(0, (1, 9000)), 422, id="too elongated"),
    ],
)
def test_broken_uploads_are_refused(client, content, status):
    response = post(client, content)
    assert response.status_code == status
    assert "\n" not in response.json()["detail"]


def test_requests_without_an_image(client):
    assert client.post("/detect").status_code == 422
    assert client.post("/detect", data={"image": "text"}).status_code == 422
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/detect", content=b"--y", headers=broken).status_code in (400, 422)
