"""Nothing but MODEL.WEIGHTS is a URL: no command makes a request, or writes where it says."""

import http.server
import json
import os
import threading
import urllib.request
from pathlib import Path

import pytest
import yaml
from detectron2.data import DatasetCatalog

from libra_d2.cli.main import main
from libra_d2.data.images.reader import read_image
from libra_d2.data.images.sources import find_images
from libra_d2.data.precomputed_proposals import check_proposals
from libra_d2.engine import load_cfg
from libra_d2.errors import UserError

from ..inference.small_detector import write_detector, write_images
from ..support.coco_files import write_dataset
from ..support.project import ROOT

CONFIG = str(ROOT / "configs/libra_mobilenet_v2.yaml")


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"MODEL: {}\n")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp("model"))


FORMS = [
    "http://{host}/../../../evil.pth",
    "http://{host}/%2e%2e/%2e%2e/evil.pth",
    "HTTP://{host}/a/../../evil.jpg",
    "http://{host}//tmp/evil.jpg",
    " http://{host}/evil.jpg",
    "http://{host}/..\\..\\evil.jpg",
    "http://{host}/evil.jpg?a=/../../b.jpg",
    "ftp://{host}/../evil.jpg",
    "file:///etc/hostname",
    "detectron2://../../evil.jpg",
    "torchvision://../../evil.jpg",
    "http://{host}/" + "x" * 400 + ".jpg",
]


@pytest.fixture(params=FORMS)
def url(request, server, tmp_path, monkeypatch):
    """A URL; afterwards nobody has asked for it, and nothing of it lies anywhere."""
    for name in ("run", "fvcore", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "fvcore"))
    monkeypatch.setenv("LIBRA_D2_CACHE", str(tmp_path / "cache"))
    yield request.param.format(host=f"127.0.0.1:{server.server_port}")
    assert server.asked == []
    assert not [p for p in tmp_path.rglob("*") if "evil" in p.name]
    assert os.listdir(tmp_path / "fvcore") == []


def test_configs_and_their_bases(url, model, capsys):
    Path("base.yaml").write_text(yaml.safe_dump({"_BASE_": url}))
    Path("list.yaml").write_text(yaml.safe_dump({"_BASE_": [CONFIG, "base.yaml"]}))
    for name in (url, "base.yaml", "list.yaml"):
        with pytest.raises(UserError, match="must be a path on this machine, got the URL"):
            load_cfg(name)
    # Of a stranger's run.
    os.mkdir("model")
    os.symlink(f"{model}/model_final.pth", "model/model_final.pth")
    os.rename("base.yaml", "model/config.yaml")
    write_images(Path("photos"), 1)
    assert main(["infer", "photos", "--model", "model"]) == 2
    error = capsys.readouterr().err
    assert "model/config.yaml: _BASE_ must be a path on this machine" in error
    assert error.count("\n") == 1


def test_keys_that_name_files(url):
    for opts in (
        ["DATASETS.TRAIN", f"coco:{url},."],
        ["DATASETS.TRAIN", f"coco:{url},."],
        ["DATASETS.TRAIN", f"voc:{url},train"],
        ["DATASETS.TRAIN", f"yolo:{url}"],
        ["DATASETS.TRAIN", f"packed:{url}"],
        ["DATASETS.TRAIN", f"packed:{url}"],
    ):
        assert main(["check-data", "--config-file", CONFIG, *opts, "OUTPUT_DIR", "out"]) == 2


def test_proposals(url, tmp_path):
    cfg = load_cfg(CONFIG, ["MODEL.LOAD_PROPOSALS", "True"])
    cfg.DATASETS.TRAIN, cfg.DATASETS.PROPOSAL_FILES_TRAIN = ("one",), (url,)
    DatasetCatalog.register("one", lambda: [{"file_name": "a", "image_id": 1}])
    try:
        with pytest.raises(UserError, match="PROPOSAL_FILES_TRAIN must be a path on this machine"):
            check_proposals(cfg)
    finally:
        DatasetCatalog.remove("one")


def test_the_server_would_tell(server):
    """Else the tests below would prove nothing."""
    urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/x").close()
    assert server.asked.pop() == "/x"


def test_infer_skips_a_url_of_a_list(server, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_images(Path("photos"), 1)
    Path("list.txt").write_text(f"photos/0000.png\nhttp://127.0.0.1:{server.server_port}/a.jpg\n")
    assert main(["infer", "list.txt", "--model", model]) == 1
    assert "2 images: 1 done, 1 skipped" in capsys.readouterr().out and server.asked == []


def test_lists_standard_input_and_options(url, capsys):
    write_images(Path("photos"), 1)
    lines = f"photos/0000.png\n{url}\n"
    Path("list.txt").write_text(lines)
    for args in ({"inputs": ["list.txt"]}, {"inputs": ["-"], "stdin": lines.splitlines()}):
        good, bad = find_images(**args)
        assert good.read("RGB").shape == (60, 80, 3)
        with pytest.raises(ValueError):
            bad.read("RGB")
    for args in (
        ["evaluate", "--predictions", url, "--annotations", url],
        ["analyze", "--predictions", url, "--annotations", url, "--output", "a", "--no-report"],
        ["draw", "--annotations", url, "--output", "drawn"],
        ["pack", "--json", url, "--images", "photos", "--out", "x.lmdb"],
        ["pack", "--verify", url],
        ["convert", url, "x.pth"],
    ):
        assert main(args) == 2, args
        assert "Traceback" not in capsys.readouterr().err


def test_images_that_annotations_name(url, tmp_path, capsys):
    json_file, images = write_dataset(tmp_path / "data")
    data = json.loads(Path(json_file).read_text())
    data["images"][0]["file_name"] = url
    Path(json_file).write_text(json.dumps(data))
    with pytest.raises(ValueError, match="must be a path on this machine, not a URL"):
        read_image(url)
    main(["pack", "--json", json_file, "--images", images, "--out", "x.lmdb"])
    main(["draw", "--annotations", json_file, "--images", images, "--output", "drawn"])
    main(["draw", "--annotations", json_file, "--output", "drawn2"])
    options = ["DATASETS.TRAIN", f"coco:{json_file},{images}"]
    main(["check-data", "--config-file", CONFIG, *options, "OUTPUT_DIR", "out"])
    assert "Traceback" not in capsys.readouterr().err
