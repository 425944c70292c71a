"""A server in its own process: bad clients, its end, and mistakes in its options."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from libra_d2.cli import serve as command_module
from libra_d2.cli.main import main
from libra_d2.errors import UserError
from libra_d2.serving.limits import Limits
from libra_d2.serving.logs import JsonLines
from libra_d2.serving.server import address_of, listen, read_token

from .servers import running
from .test_predictor import TORCH
from .uploads import png

BODY = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n%b\r\n--x--\r\n'
HEAD = "POST /detect HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n"


@pytest.fixture(scope="module")
def port(exported):
    with running("--model", exported[1], "--upload-timeout", 2) as (process, port):
        yield port
        assert process.poll() is None, "a client has ended the server"


def post(port, content=None, query="", **options):
    files = {"image": ("a.png", content or png(0))}
    return httpx.post(f"http://127.0.0.1:{port}/detect{query}", files=files, timeout=60, **options)


@pytest.fixture(autouse=True)
def it_goes_on(request):
    yield
    if "port" in request.fixturenames:
        assert post(request.getfixturevalue("port")).status_code == 200


def talk(port, *parts):
    """Send parts, and return all that is answered until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as s:
        answer = b""
        try:
            for part in parts:
                s.sendall(part)
            while data := s.recv(1 << 16):
                answer += data
        except ConnectionResetError:
            pass
        return answer


def test_the_page_and_an_image(port):
    found = post(port)
    assert found.status_code == 200 and found.json()["a.png"]["predictions"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as f:
        assert b"Object detection" in f.read()
        assert "connect-src 'self'" in f.headers["Content-Security-Policy"]


def test_a_slow_upload_is_ended(port):
    answer = talk(port, f"{HEAD}Content-Length: 90000\r\n\r\n".encode(), BODY[:40])
    assert answer.startswith(b"HTTP/1.1 408") and b"within 2 s" in answer


@pytest.mark.parametrize("part", [b"", b"POST /det", b"POST /detect HTTP/1.1\r\nHost: a\r\nX: y"])
def test_headers_that_do_not_come_are_not_waited_for(port, part):
    assert talk(port, part) == b""


def test_headers_that_do_not_come_after_a_request(port):
    answer = talk(port, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /hea")
    assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"HTTP/1.1") == 1


def test_aborted_uploads(port):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as s:
            s.sendall(f"{HEAD}Content-Length: 90000\r\n\r\n".encode() + BODY[:60])


def test_clients_that_do_not_wait_for_the_answer(port):
    body = BODY % png(0)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as s:
            s.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def test_huge_headers(port):
    answer = talk(port, b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200_000 + b"\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


def test_what_is_not_http(port):
    assert talk(port, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_a_declared_length_that_is_too_large_is_refused_before_the_body(port):
    answer = talk(port, f"{HEAD}Content-Length: 99999999999\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("length", [True, False])
def test_a_client_that_sends_too_much_still_gets_the_answer(port, length):
    def chunks():
        yield BODY[:70]
        for _ in range(30):
            yield b"\0" * (1 << 20)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    if length:
        headers["Content-Length"] = str(70 + (30 << 20))
    url = f"http://127.0.0.1:{port}/detect"
    response = httpx.post(url, content=chunks(), headers=headers)
    assert response.status_code == 413 and "at most 20971520 bytes" in response.json()["detail"]


def test_a_form_of_ten_thousand_parts(port):
    part = b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\nb\r\n'
    body = b"".join(part % i for i in range(10_000)) + b"--x--\r\n"
    response = httpx.post(
        f"http://127.0.0.1:{port}/detect",
        content=body,
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert response.status_code == 413 and "at most 16 images" in response.json()["detail"]


def test_nothing_of_torch_is_loaded_and_the_log_is_json(exported):
    with running("--model", exported[1]) as (process, port):
        assert post(port).status_code == 200
        files = Path(f"/proc/{process.pid}/maps").read_text()
        assert not [name for name in TORCH if f"/{name}/" in files]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    lines = [json.loads(line) for line in err.splitlines()]
    assert [(x["path"], x["status"]) for x in lines if x["event"] == "request"] == [
        ("/detect", 200)
    ]
    assert lines[-1]["event"] == "stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_finishes_what_was_accepted(exported, number):
    with running("--model", exported[1], "--max-batch", 1) as (process, port):
        with ThreadPoolExecutor(8) as pool:
            pending = [pool.submit(post, port, png(i, (300, 400))) for i in range(8)]
            metrics = f"http://127.0.0.1:{port}/metrics"
            while "requests_in_progress 1.0" in (text := httpx.get(metrics).text):
                assert "libra_d2_requests_in_progress" in text
                time.sleep(0.001)
            process.send_signal(number)
            responses = []
            for one in pending:
                with contextlib.suppress(httpx.TransportError):  # it came after the signal
                    responses.append(one.result().status_code)
        assert responses and set(responses) == {200}
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0 and "trace" not in err
        answered = [x for x in map(json.loads, err.splitlines()) if x.get("path") == "/detect"]
        assert len(answered) == len(responses), "an accepted request was lost"


def test_the_token_is_not_visible(exported, tmp_path):
    (tmp_path / "token").write_text("s3cret-of-file\n")
    for options, env, token in (
        (["--token-file", tmp_path / "token"], {}, "s3cret-of-file"),
        ([], {"LIBRA_D2_TOKEN": "s3cret-of-env"}, "s3cret-of-env"),
    ):
        with running("--model", exported[1], *options, **env) as (process, port):
            shown = subprocess.run(
                ["ps", "-ww", "-o", "args=", "-p", str(process.pid)], capture_output=True, text=True
            ).stdout
            assert "serve" in shown and "s3cret" not in shown
            assert post(port).status_code == 401
            assert post(port, headers={"Authorization": "Bearer s3cret"}).status_code == 401
            assert post(port, headers={"Authorization": f"Bearer {token}"}).status_code == 200
            process.terminate()
            out, err = process.communicate(timeout=30)
            assert "s3cret" not in out + err


def test_a_token_that_cannot_be_used(tmp_path, monkeypatch):
    path = tmp_path / "token"
    monkeypatch.delenv("LIBRA_D2_TOKEN", raising=False)
    assert read_token() == ""
    for content in ("", "\n", "two words", "ü", "a\0b"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"the token in .* must be printable ASCII"):
            read_token(str(path))
    with pytest.raises(UserError, match="token file"):
        read_token(str(tmp_path / "none"))
    monkeypatch.setenv("LIBRA_D2_TOKEN", "")
    with pytest.raises(UserError, match="LIBRA_D2_TOKEN must be"):
        read_token()
    path.write_text("good")
    with pytest.raises(UserError, match="--token-file cannot be used with"):
        read_token(str(path))


@pytest.mark.parametrize(
    "options, words",
    [
        (["--port", "70000"], "--port must be in [0, 65535], got 70000"),
        (["--host", "no host"], "--host must be an address of this machine"),
        (["--max-batch", "0"], "--max-batch must be at least 1"),
        (["--max-delay", "nan"], "--max-delay must be at least 0"),
        (["--max-bytes", "0"], "--max-bytes must be above 0"),
        (["--timeout", "-1"], "--timeout must be above 0"),
        (["--device", "cuda"], "device must be cpu"),
        (["--score-threshold", "0"], "score_threshold must be at least 0.001"),
        (["--opts", "A", "1"], "opts cannot be used"),
        (["--token-file", "nowhere"], "nowhere does not exist"),
    ],
)
def test_mistakes_in_options_are_one_line(exported, capsys, options, words):
    assert main(["serve", "--model", exported[1], *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("libra-d2 serve: ") and words in err and err.count("\n") == 1


def test_models_that_are_none(exported, tmp_path, capsys):
    broken, other = tmp_path / "broken.onnx", tmp_path / "other.onnx"
    broken.write_bytes(b"no model")
    shutil.copy(exported[1], other)
    import onnx

    model = onnx.load(other)
    del model.metadata_props[:]
    onnx.save(model, other)
    for path, words in (
        (broken, "cannot be loaded by ONNX Runtime"),
        (other, "lacks the metadata"),
        (tmp_path / "none.onnx", "does not exist"),
        (tmp_path / "none", "none"),
    ):
        assert main(["serve", "--model", str(path)]) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1


def test_a_port_in_use(exported, capsys):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert address_of(taken) == f"http://127.0.0.1:{port}"
        assert main(["serve", "--model", exported[1], "--port", str(port)]) == 2
    assert f"cannot listen at --host 127.0.0.1 --port {port}" in capsys.readouterr().err


def test_the_defaults_of_the_options_are_those_of_the_limits():
    defaults = {name: default for name, (_, default, _) in command_module._LIMITS.items()}
    assert Limits(**defaults) == Limits() and defaults.keys() == Limits().__dict__.keys()


def test_a_line_of_the_log_is_one_line_whatever_it_says():
    import logging

    record = logging.LogRecord("a", logging.ERROR, "f", 1, "bad\n\x1b[31m%s", ("x",), None)
    record.fields = {"client": 'a"\nb'}
    line = JsonLines().format(record)
    assert line.isprintable() and json.loads(line)["client"] == 'a"\nb'
    assert os.linesep not in line
