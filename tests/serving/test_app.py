"""The web application, as its clients see it."""

import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import libra_d2
from libra_d2.predictions.detections import Detections
from libra_d2.serving import Predictor
from libra_d2.serving.app import create_app
from libra_d2.serving.limits import Limits

from .uploads import png, png_with_header, stored

testclient = pytest.importorskip("fastapi.testclient")
LIMITS = Limits(max_bytes=200_000, max_pixels=1_000_000, max_images=6, max_slices=20)


@pytest.fixture(scope="module")
def predictor(exported):
    return Predictor(exported[1])


@pytest.fixture(scope="module")
def client(predictor):
    with testclient.TestClient(create_app(predictor, limits=LIMITS, max_batch=4)) as client:
        yield client


def entry(predictor, content, **options):
    found = Detections.from_instances(predictor(content))
    return found.entry(predictor.class_names, predictor.category_ids)


def post(client, *contents, query="", names=(), field="image", **options):
    names = names or [f"{i}.png" for i in range(len(contents))]
    files = [(field, (name, content)) for name, content in zip(names, contents)]
    return client.post(f"/detect{query}", files=files, **options)


def refused(response, status, *words):
    assert response.status_code == status, response.text
    detail = response.json()["detail"]
    assert isinstance(detail, str) and "\n" not in detail and len(detail) < 400
    for word in words:
        assert word in detail
    return detail


def test_one_image_and_several(client, predictor):
    one = post(client, png(0))
    assert one.status_code == 200
    assert one.json() == {"0.png": json.loads(json.dumps(entry(predictor, png(0))))}
    assert one.json()["0.png"]["predictions"], "no detections: nothing is compared"
    assert (one.json()["0.png"]["height"], one.json()["0.png"]["width"]) == (60, 80)
    several = post(client, png(0), png(1, (40, 64)), png(2))
    assert list(several.json()) == ["0.png", "1.png", "2.png"]
    assert several.json()["1.png"] == entry(predictor, png(1, (40, 64)))


def test_concurrent_requests_get_their_own_answers(client, predictor):
    images = [png(seed, (40 + 8 * seed, 64)) for seed in range(5)]
    expected = [entry(predictor, image) for image in images]
    assert len({str(e) for e in expected}) == 5
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda image: post(client, image), images * 5))
    assert [r.json() for r in responses] == [{"0.png": e} for e in expected * 5]
    text = client.get("/metrics").text
    largest = [line for line in text.splitlines() if 'libra_d2_batch_size_bucket{le="1.0"}' in line]
    count = [line for line in text.splitlines() if "libra_d2_batch_size_count" in line]
    assert largest[0].split()[-1] != count[0].split()[-1], "no batch has more than one image"


def test_the_threshold_of_a_request(client, predictor):
    every = post(client, png(0)).json()["0.png"]["predictions"]
    middle = sorted(p["score"] for p in every)[len(every) // 2]
    some = post(client, png(0), query=f"?score_threshold={middle!r}").json()["0.png"]["predictions"]
    assert some == [p for p in every if p["score"] >= middle] and 0 < len(some) < len(every)


def test_slices(client, exported):
    image = png(3, (150, 170))
    sliced = Predictor(exported[1], slice_size=64, slice_overlap=0.3)
    response = post(client, image, png(0), query="?slice=64&overlap=0.3")
    assert response.json()["0.png"] == entry(sliced, image)
    assert response.json()["0.png"] != post(client, image).json()["0.png"]
    refused(post(client, image, query="?slice=32&overlap=0.5"), 413, "at most 20 slices, got 90")


def test_coco_results(client, predictor):
    found = post(client, png(0), png(1), query="?format=coco").json()
    ids = [result["image_id"] for result in found]
    assert set(ids) == {1, 2} and ids == sorted(ids)
    first = entry(predictor, png(0))["predictions"][0]
    assert found[0] == {
        "image_id": 1,
        "category_id": first["class"]["category_id"],
        "bbox": list(first["bbox"].values()),
        "score": first["score"],
    }


def test_the_annotated_picture(client):
    image = Image.fromarray(np.full((500, 600, 3), 90, np.uint8))
    response = post(client, stored(image, "png"), query="?format=picture&score_threshold=0.01")
    assert response.headers["content-type"] == "image/jpeg"
    drawn = Image.open(io.BytesIO(response.content))
    assert drawn.size == (600, 500)
    plain = post(client, stored(image, "png"), query="?format=picture&score_threshold=1")
    assert np.unique(np.asarray(drawn)).size > 50
    assert np.ptp(np.asarray(Image.open(io.BytesIO(plain.content))).astype(int)) < 10
    refused(post(client, png(0), png(1), query="?format=picture"), 422, "one image, got 2")


@pytest.mark.parametrize(
    "query, words",
    [
        ("?score_treshold=0.5", "must be one of score_threshold, slice"),
        ("?score_threshold=1.5", "in [0, 1]"),
        ("?score_threshold=0.4&score_threshold=0.5", "given once"),
        ("?format=xml", "one of json, coco, picture"),
        ("?overlap=0.1", "only be used with slice"),
    ],
)
def test_mistakes_in_the_query_are_refused(client, query, words):
    refused(post(client, png(0), query=query), 422, words)


def test_other_paths_have_no_parameters(client):
    for path in ("/", "/health", "/ready", "/metrics"):
        assert client.get(path).status_code == 200
        refused(client.get(f"{path}?x=1"), 422, "has no parameters, got 'x'")
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404
    assert client.get("/detect").status_code == 405


@pytest.mark.parametrize(
    "content, status, words",
    [
        (b"", 415, "empty"),
        (b"not an image", 415, "not an image"),
        (stored(Image.new("RGB", (8, 8)), "eps"), 415, "PostScript"),
        (b"%!PS-Adobe-3.0\n(x) run", 415, "PostScript"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not an image"),
        (png(0)[:3000], 422, "truncated"),
        (png(0, (1, 9000)), 422, "elongated"),
        (png_with_header(2000, 2000), 413, "at most 1000000 pixels, got 2000x2000"),
        (png_with_header(100_000, 100_000), 413, "pixels"),
        (png_with_header(10, 10), 422, ""),
    ],
    ids="empty text eps postscript svg cut elongated large bomb no-pixels".split(),
)
def test_broken_images_are_refused_alone(client, predictor, content, status, words):
    refused(post(client, content), status, words)
    refused(post(client, png(1), content), status, "'1.png': ", words)
    with ThreadPoolExecutor(3) as pool:  # in one batch with good ones
        responses = list(pool.map(lambda c: post(client, c), [png(1), content, png(2)]))
    assert [r.status_code for r in responses] == [200, status, 200]
    assert responses[2].json()["0.png"] == entry(predictor, png(2))


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a\\b\0c", "<script>", "\u202e.png", "x" * 5000]
)
def test_names_are_only_names(client, name):
    """Whatever a form says, the answer has the same name, and nothing is written anywhere."""
    quoted = name.encode().replace(b"\\", b"\\\\")
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="%s"\r\n\r\n' % quoted
    response = client.post(
        "/detect",
        content=head + png(0) + b"\r\n--x--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert response.status_code in (200, 400)
    if response.status_code == 200:
        assert len(response.json()) == 1
        assert response.headers["content-type"] == "application/json"


def test_forms(client):
    refused(post(client, png(0), png(1), names=["a", "a"]), 422, "different names, got 'a' twice")
    refused(post(client, png(0), field="file"), 422, "got a file in 'file'")
    refused(client.post("/detect", data={"image": "text"}), 415, "multipart/form-data")
    refused(client.post("/detect"), 415, "multipart/form-data")
    refused(client.post("/detect", content=png(0)), 415, "multipart/form-data")
    extra = client.post("/detect", files={"image": png(0)}, data={"score_threshold": "0.5"})
    refused(extra, 422, "got a value in 'score_threshold'", "parameters of the URL")
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/detect", content=b"--y", headers=multipart).status_code in (400, 422)
    assert client.post("/detect", content=b"--x--", headers=multipart).status_code == 422
    without = {"Content-Type": "multipart/form-data"}
    refused(client.post("/detect", content=b"x", headers=without), 400, "boundary")


def test_forms_with_too_many_parts(client):
    refused(post(client, *[png(0)] * 7), 413, "at most 6 images")
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="%d"\r\n\r\na\r\n'
    many = b"".join(part % i for i in range(2000)) + b"--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(client.post("/detect", content=many, headers=headers), 413, "at most 6 images")
    many = many.replace(b"; filename", b"; other")
    refused(client.post("/detect", content=many, headers=headers), 413, "at most 6 images")


def test_requests_that_are_too_large(client):
    refused(post(client, b"\0" * 200_001), 413, "at most 200000 bytes")

    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield b"\0" * 20_000

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = client.post("/detect", content=body(), headers=headers)
    assert "content-length" not in response.request.headers
    refused(response, 413, "at most 200000 bytes")


@pytest.mark.parametrize("length", ["x", "-5", "1e3"])
def test_a_length_that_is_no_number(client, length):
    response = client.post("/detect", content=b"", headers={"Content-Length": length})
    assert 400 <= response.status_code < 500


def test_the_token(predictor):
    with testclient.TestClient(create_app(predictor, token="s3cret")) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            response = post(client, png(0), headers=headers)
            refused(response, 401, "Authorization: Bearer TOKEN")
            assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/metrics").status_code == 401
        right = {"Authorization": "bearer s3cret"}
        assert post(client, png(0), headers=right).status_code == 200
        assert client.get("/metrics", headers=right).status_code == 200
        for path in ("/", "/health", "/ready"):
            response = client.get(path)
            assert response.status_code == 200 and "s3cret" not in response.text


def test_pages_of_other_sites_cannot_use_it(client):
    refused(post(client, png(0), headers={"Sec-Fetch-Site": "cross-site"}), 403, "other sites")
    for site in ("same-origin", "none"):
        assert post(client, png(0), headers={"Sec-Fetch-Site": site}).status_code == 200
    assert client.get("/health", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_metrics_and_log(client, caplog):
    post(client, png(0))
    text = client.get("/metrics").text
    assert 'libra_d2_requests_total{path="/detect",status="200"}' in text
    assert "libra_d2_queue_images 0.0" in text and "process_resident_memory_bytes" in text
    client.get("/etc/passwd")
    assert 'path="other",status="404"' in client.get("/metrics").text
    with caplog.at_level("INFO", "libra_d2.serving"):
        response = post(client, png(0), png(1))
    (record,) = [r for r in caplog.records if r.name == "libra_d2.serving"]
    fields = record.fields
    assert fields["id"] == response.headers["x-request-id"]
    assert (fields["path"], fields["status"], fields["images"]) == ("/detect", 200, 2)
    assert fields["detections"] > 0 and fields["bytes"] > 10_000


def test_a_defect_is_one_line_and_the_server_goes_on(predictor, caplog, monkeypatch):
    with testclient.TestClient(create_app(predictor)) as client:
        with monkeypatch.context() as patch:
            patch.setattr(predictor, "predict", lambda _: 1 / 0)
            refused(post(client, png(0)), 500, "the server has failed")
        assert any(r.exc_info for r in caplog.records), "the log does not say why"
        assert post(client, png(0)).status_code == 200


def test_a_detector_that_takes_too_long(predictor, monkeypatch):
    import threading

    gate = threading.Event()
    predict = predictor.predict
    limits = Limits(max_queue=1, timeout=0.3)
    with testclient.TestClient(create_app(predictor, limits=limits, max_batch=1)) as client:
        monkeypatch.setattr(predictor, "predict", lambda r: (gate.wait(20), predict(r))[1])
        with ThreadPoolExecutor(4) as pool:
            pending = [pool.submit(post, client, png(0)) for _ in range(4)]
            responses = [p.result() for p in pending]
        try:
            assert {r.status_code for r in responses} == {503}
            assert all(int(r.headers["retry-after"]) >= 1 for r in responses)
            details = {refused(r, 503) for r in responses}
            assert any("has not answered within 0.3 s" in d for d in details)
        finally:
            gate.set()
        monkeypatch.undo()
        for _ in range(100):
            if post(client, png(0)).status_code == 200:
                break
        else:
            pytest.fail("it does not recover")
        assert client.get("/ready").json() == {"status": "ready"}


def test_a_model_in_torch(model, exported):
    predictor = libra_d2.Predictor(model)
    with testclient.TestClient(create_app(predictor)) as client:
        images = [png(seed, (60, 80)) for seed in range(3)]
        with ThreadPoolExecutor(3) as pool:
            found = [r.json()["0.png"] for r in pool.map(lambda i: post(client, i), images)]
    for image, one in zip(images, found):
        expected = entry(predictor, image)
        assert len(one["predictions"]) == len(expected["predictions"]) > 0
        scores = [[p["score"] for p in e["predictions"]] for e in (one, expected)]
        assert np.allclose(*scores, rtol=0, atol=1e-4)
