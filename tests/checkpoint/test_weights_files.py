"""The forms of `MODEL.WEIGHTS`, tested with a local web server."""

import contextlib
import hashlib
import http.server
import io
import os
import re
import threading
import time
from pathlib import Path

import pytest
import torch
from iopath.common.file_io import get_cache_dir
from torch import nn

from libra_d2.checkpoint import LibraCheckpointer, download, weights_files
from libra_d2.checkpoint.timm_weights import timm_weights_file
from libra_d2.checkpoint.weights_files import check_weights, parse_weights, weights_file
from libra_d2.config.choices import WEIGHTS_SCHEMES
from libra_d2.errors import UserError
from libra_d2.utils.cache import cache_folder

from ..support.project import ROOT


def weights_bytes(value=1.0):
    content = io.BytesIO()
    torch.save({"model": {"weight": torch.full((2, 3), value), "bias": torch.zeros(2)}}, content)
    return content.getvalue()


class Server(http.server.BaseHTTPRequestHandler):
    """
    Serves weights under every path, except those that name another behavior. Records all requests.
    """

    def do_GET(self):
        self.server.asked.append(self.path)
        content = weights_bytes()
        if "redirect=" in self.path:
            self.send_response(302)
            self.send_header("Location", self.path.partition("redirect=")[2])
            self.end_headers()
            return
        self.send_response(404 if "missing" in self.path else 200)
        if "huge" in self.path:
            self.send_header("Content-Length", str(1 << 50))
        elif "cut" in self.path:
            self.send_header("Content-Length", str(len(content) + 1))
        self.end_headers()
        with contextlib.suppress(OSError):
            if "endless" in self.path:
                while True:
                    self.wfile.write(bytes(1 << 16))
            while "slow" in self.path:
                self.wfile.write(b"x")
                time.sleep(0.05)
            if "hangs" in self.path:
                time.sleep(3)
            if "empty" not in self.path:
                self.wfile.write(b"<!DOCTYPE html>" if "page" in self.path else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.asked, server.daemon_threads = [], True
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """
    Change to a working folder, and set cache folders next to it, of which one is named by a link.
    """
    for name in ("run", "cache", "iopath"):
        (tmp_path / name).mkdir()
    os.symlink("cache", tmp_path / "link")
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setenv("LIBRA_D2_CACHE", str(tmp_path / "link"))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "iopath"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def load(name):
    model = nn.Linear(3, 2)
    LibraCheckpointer(model).load(name)
    return model


# A place outside of the cache that a name could lead to, if it were taken as it is.
VARIANTS = [
    "/../../../evil.pth",
    "/%2e%2e/%2e%2e/%2E%2E/evil.pth",
    "/..%2f..%2fevil.pth",
    "/a/../../../../evil.pth",
    "/..\\..\\evil.pth",
    "//tmp/evil.pth",
    "/C:/evil.pth",
    "/evil.pth/",
    "/evil.pth/../..",
    "/evil.pth?a=/../../evil.pth",
    "/evil.pth;../../evil.pth",
    "/" + "x" * 3000 + ".pth",
    "/%00evil.pth",
    "/evil.pth%0a../b",
    "/évil.pth",
    "/....//....//evil.pth",
]


@pytest.mark.parametrize("path", VARIANTS)
def test_a_url_does_not_choose_where_its_file_lies(server, here, path):
    with contextlib.suppress(UserError):
        assert load(server.url + path).weight.sum() == 6
    for name in files(here):
        assert name.startswith("cache/weights/127.0.0.1-") and name.endswith(".pth"), name
    assert not os.path.exists("/tmp/evil.pth")


def test_a_url_is_downloaded_once_and_named_by_its_hash(server, here, caplog):
    url = f"{server.url}/a/model_final.pth"
    assert load(url).weight.sum() == 6 and load(url).weight.sum() == 6
    assert server.asked == ["/a/model_final.pth"] and "is not encrypted" in caplog.text
    digest = hashlib.sha256(url.encode()).hexdigest()[:32]
    assert files(here) == [f"cache/weights/127.0.0.1-{digest}.pth"]
    load(f"{server.url}/b/model_final.pth")
    assert len(files(here)) == 2


@pytest.mark.parametrize(
    "target, message",
    [
        ("file:///etc/hostname", "302.* to url 'file:///etc/hostname' is not allowed"),
        ("ftp://127.0.0.1/a.pth", "redirects to ftp://127.0.0.1/a.pth, but .* must lead to http"),
        ("/x?redirect=file:///etc/hostname", "302.* to url 'file:///etc/hostname' is not allowed"),
        ("gopher://127.0.0.1/", "302.*is not allowed"),
    ],
)
def test_redirects_stay_on_the_web(server, here, target, message):
    with pytest.raises(UserError, match=message):
        load(f"{server.url}/a.pth?redirect={target}")
    assert files(here) == []


def test_redirects_without_end_and_good_ones(server, here):
    with pytest.raises(UserError, match="cannot download"):
        load(f"{server.url}/a.pth?redirect=/a.pth?redirect=" + "/b.pth?redirect=" * 20)
    assert load(f"{server.url}/a.pth?redirect=/../../evil.pth").weight.sum() == 6
    assert len(files(here)) == 1 and files(here)[0].startswith("cache/weights/127.0.0.1-")


@pytest.mark.parametrize(
    "path, message",
    [
        ("/missing.pth", r"\(404 Not Found\)"),
        ("/huge.pth", "must have at most .* MB to be downloaded"),
        ("/endless.pth", "must have at most .* MB to be downloaded"),
        ("/cut.pth", r"cannot download .*(bytes arrived|IncompleteRead)"),
        ("/slow.pth", "only .* bytes arrived in"),
        ("/hangs.pth", "timed out"),
        ("/empty.pth", "the file is empty"),
        ("/resnet18-f37072fd.pth", "is damaged or not the file that its name says"),
        ("", "does not name a file"),
    ],
)
def test_what_cannot_be_downloaded_leaves_nothing(server, here, monkeypatch, path, message):
    monkeypatch.setattr(download, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    monkeypatch.setattr(download, "GRACE", 0.3)
    with pytest.raises(UserError, match=rf"^MODEL.WEIGHTS {server.url}{path}.*{message}") as e:
        load(server.url + path)
    assert "\n" not in str(e.value) and files(here) == []


def test_an_error_page_is_not_taken_for_weights(server, here):
    with pytest.raises(UserError, match="it is a web page, not weights"):
        load(f"{server.url}/page.pth")


def test_documented_schemes_are_those_that_are_read():
    """Otherwise the config check would refuse URLs that can be loaded, or accept others."""
    table = (
        (ROOT / "docs/models.md").read_text().partition("| URL | source |")[2].partition("\n\n")[0]
    )
    assert set(re.findall(r"`(\w+)://`", table)) == set(WEIGHTS_SCHEMES)
    assert set(weights_files._FROM_SCHEME) == set(WEIGHTS_SCHEMES)


@pytest.mark.parametrize(
    "name, message",
    [
        ("ftp://127.0.0.1/a.pth", "one of https://, http://, detectron2://"),
        ("s3://bucket/a.pth", "one of https://"),
        ("file:///a.pth", "must be a path without file://"),
        ("FILE:///a.pth", "without file://"),
        ("packed://a/b.pth", "one of https://"),
        ("detectron2://../../evil.pkl", "not the name of a file in Detectron2's model zoo"),
        ("detectron2:///etc/passwd", "not the name of a file in Detectron2's model zoo"),
        ("detectron2://a/%2e%2e/evil.pkl", "not the name of a file in Detectron2's model zoo"),
        ("detectron2://a\\..\\evil.pkl", "not the name of a file in Detectron2's model zoo"),
        ("catalog://../evil", "not the name of a file in Detectron2's model zoo"),
        ("catalog://ImageNetPretrained/evil", "ModelCatalog has no such name"),
        ("torchvision://../evil", "torchvision has no such weights"),
        ("timm://../../evil", "timm has no such weights"),
        ("timm://hf-hub:stranger/model", "timm has no such weights"),
        ("timm://local-dir:/tmp/x", "timm has no such weights"),
        ("http://user:secret@127.0.0.1/a.pth", "a URL must not contain a user name"),
        ("http:///a.pth", "has no valid host name"),
        ("http://[::1/a.pth", "is not a URL"),
        ("a\0b.pth", "must be a path without NUL characters"),
        ("nowhere.pth", "does not exist"),
        (".", "must be a file, got the folder"),
        ("/dev/zero", "must be a regular file, got /dev/zero"),
    ],
)
def test_other_names_are_refused_without_a_request(here, monkeypatch, name, message):
    def fail(*_, **__):
        raise AssertionError("a request was made")

    monkeypatch.setattr(download, "_request", fail)
    with pytest.raises(UserError, match=message) as e:
        load(name)
    assert str(e.value).startswith("MODEL.WEIGHTS") and "secret" not in str(e.value).split(": ")[-1]
    assert files(here) == []


def test_names_of_the_zoo_are_urls_of_its_server(here, monkeypatch):
    asked = []

    def request(url, path, check):
        asked.append(url)
        Path(path).write_bytes(weights_bytes())

    monkeypatch.setattr(download, "_request", request)
    base = "https://dl.fbaipublicfiles.com/detectron2/"
    weights_file(parse_weights("detectron2://ImageNetPretrained/MSRA/R-50.pkl"))
    weights_file(parse_weights("catalog://ImageNetPretrained/MSRA/R-50"))
    assert asked[0] == f"{base}ImageNetPretrained/MSRA/R-50.pkl"
    assert asked[1].endswith("ImageNetPretrained/MSRA/R-50.pkl")
    # A file that Detectron2 downloaded earlier serves, too.
    place = Path(get_cache_dir(), "detectron2/COCO/model_final.pkl")
    place.parent.mkdir(parents=True)
    place.write_bytes(b"x")
    found = weights_file(parse_weights("detectron2://COCO/model_final.pkl"))
    assert os.path.samefile(found, place) and len(asked) == 2


def test_parts_and_heuristics_of_a_name(here):
    assert parse_weights("a.pth") == ("a.pth", "", False)
    assert parse_weights("a.pth#ema.b?matching_heuristics=True") == ("a.pth", "ema.b", True)
    assert parse_weights("https://h/a.pth?x=1#ema") == ("https://h/a.pth?x=1", "ema", False)
    Path("a#1.pth").write_bytes(weights_bytes())
    assert parse_weights("a#1.pth").file == "a#1.pth" and load("a#1.pth").weight.sum() == 6
    for name in ("", "a#1.pth", "https://h/a.pth"):
        check_weights(name)


def test_the_cache_of_a_user_without_a_home(monkeypatch, tmp_path):
    monkeypatch.delenv("LIBRA_D2_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    assert cache_folder().name == f"libra_d2-{os.getuid()}"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/libra_d2"


def test_the_cache_of_another_user_is_not_taken(monkeypatch, tmp_path, server):
    """Whoever creates the folder in the temporary folder could put weights into it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("LIBRA_D2_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    (tmp_path / "theirs").mkdir()
    os.symlink("theirs", tmp_path / f"libra_d2-{os.getuid()}")
    with pytest.raises(UserError, match=r"belongs to another user\. Set LIBRA_D2_CACHE"):
        load(f"{server.url}/a.pth")


def test_timm_names_are_no_paths(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm/resnet18.pth").write_bytes(weights_bytes())
    assert timm_weights_file("resnet18") == str(tmp_path / "timm/resnet18.pth")
    with pytest.raises(UserError, match="timm has no such weights"):
        timm_weights_file("../../resnet18")
