from pathlib import Path

import pytest

from libra_d2.cli.main import main
from libra_d2.data.images.packed_store import close_store

from ..support.coco_files import write_dataset


def pack(folder, *options, out="x.lmdb"):
    paths = ["--json", f"{folder}/coco.json", "--images", f"{folder}/images"]
    return main(["pack", *paths, "--out", f"{folder}/{out}", *options])


def test_packs_and_verifies(tmp_path, capsys):
    write_dataset(tmp_path)
    assert pack(tmp_path) == 0
    packed = capsys.readouterr().out
    assert "x.lmdb: 3 images, " in packed and "SHA-256" in packed
    assert main(["pack", "--verify", f"{tmp_path}/x.lmdb"]) == 0
    verified = capsys.readouterr().out
    assert verified == packed.strip() + ": all checksums match\n"


def test_the_exit_code_tells_of_bad_images(tmp_path, capsys):
    write_dataset(tmp_path)
    (tmp_path / "images/2.jpg").write_bytes(b"no image")
    assert pack(tmp_path) == 1
    out, err = capsys.readouterr()
    assert "2 images, 1 skipped" in out
    assert "skipped 2.jpg: not an image of a supported format" in err


def test_the_exit_code_tells_of_damage(tmp_path, capsys):
    write_dataset(tmp_path)
    pack(tmp_path)
    piece = (tmp_path / "images/2.jpg").read_bytes()[-40:]
    close_store(f"{tmp_path}/x.lmdb")
    content = (tmp_path / "x.lmdb").read_bytes()
    (tmp_path / "x.lmdb").write_bytes(content.replace(piece, b"!" * 40))
    assert main(["pack", "--verify", f"{tmp_path}/x.lmdb"]) == 1
    out, err = capsys.readouterr()
    assert "x.lmdb: image 2.jpg is damaged" in err and "is damaged. Pack the data set again" in out


def test_other_sources_do_not_mix(tmp_path, capsys):
    """Started again with another --max-side or other annotations, the store would be of both."""
    write_dataset(tmp_path)
    assert pack(tmp_path) == 0
    before = (tmp_path / "x.lmdb").read_bytes()
    assert pack(tmp_path, "--max-side", "30") == 2
    assert "x.lmdb was packed from other annotations or with another --max-side" in last(capsys)
    write_dataset(tmp_path / "other", num_images=2)
    assert pack(tmp_path / "other", out="../x.lmdb") == 2
    assert (tmp_path / "x.lmdb").read_bytes() == before


def last(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "options,named",
    [
        ([], "Missing here: --json, --images, --out"),
        (["--json", "a.json", "--out", "a"], "Missing here: --images"),
        (["--verify", "no.lmdb"], "no.lmdb does not exist"),
        (["--verify", "no.lmdb", "--out", "a"], "cannot be combined with other options"),
        (["--json", "no.json", "--images", ".", "--out", "a"], "annotation file no.json does not"),
        (["--json", "{json}", "--images", "no", "--out", "a"], "image folder no does not exist"),
        (["--json", "{json}", "--images", ".", "--out", "{out}"], "none of the 3 images"),
        (
            ["--json", "{json}", "--images", ".", "--out", "no/a"],
            "of the packed data does not exist",
        ),
        (["--json", "{json}", "--images", ".", "--out", "."], "got the folder ."),
        (["--json", "{json}", "--images", ".", "--out", "{json}"], "would replace --json"),
        (["--json", "{json}", "--images", ".", "--out", "{other}"], "cannot be written as packed"),
        (
            ["--json", "{json}", "--images", ".", "--out", "a", "--max-side", "-1"],
            "--max-side must be at least 0, got -1",
        ),
    ],
)
def test_a_users_mistake_is_one_line(tmp_path, capsys, options, named):
    json_file, _ = write_dataset(tmp_path)
    content = Path(json_file).read_bytes()
    paths = {"json": json_file, "out": tmp_path / "x.lmdb", "other": tmp_path / "other.json"}
    paths["other"].write_bytes(content)
    assert main(["pack", *(o.format(**paths) for o in options)]) == 2
    assert named in last(capsys)
    assert Path(json_file).read_bytes() == paths["other"].read_bytes() == content
    assert not Path("a").exists()
