"""JSON and YAML of strangers: what is valid is read, everything else is one line and bounded."""

import json
import os
import tracemalloc

import pytest
import yaml

from libra_d2.errors import UserError
from libra_d2.utils.json_files import MAX_DEPTH, depth_of_json, read_json
from libra_d2.utils.messages import one_line, printable, shown
from libra_d2.utils.yaml_files import parse_yaml, read_yaml

DATA = {"a": [1, {"b": 'quote " and \\ and ]]]] {{'}, "é"], "c": {"[[[[": "\\"}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("ascii", [True, False])
def test_json_in_every_encoding_is_read(tmp_path, encoding, ascii):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(DATA, ensure_ascii=ascii).encode(encoding))
    assert read_json(str(path)) == DATA


def depth(value):
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@pytest.mark.parametrize(
    "value",
    [DATA, [], 1, "[[[", [["]", "]]"], [[]]], {"a": "\\\\", "b": ['\\"[', [{}]]}, ["\\", [[]]]],
)
def test_depth_counts_brackets_outside_of_strings_only(value):
    for indent in (None, 1):
        assert depth_of_json(json.dumps(value, indent=indent).encode()) == depth(value)


def fifo(path):
    os.mkfifo(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"[" * 100_000, "is nested deeper than 64 levels"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "is nested deeper than 64 levels"),
        (('{"a":' * 500 + "1" + "}" * 500).encode("utf-16"), "is nested deeper than 64 levels"),
        (b"", "is not a JSON file: Expecting value"),
        (b"\xff\xfe\xff", "is not a JSON file"),
        (b'{"a": "\x80"}', "is not a JSON file"),
        (b"1" * 5000, "is not a JSON file: Exceeds the limit"),
        (fifo, "is not a regular file"),
        (os.mkdir, "is a folder"),
        (lambda path: None, "does not exist"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 5 << 30), "at most"),
    ],
)
def test_other_json_is_refused_in_one_line(tmp_path, content, message):
    path = str(tmp_path / "a\x1b.json")
    if callable(content):
        content(path)
    else:
        with open(path, "wb") as f:
            f.write(content)
    with pytest.raises(UserError) as e:
        read_json(path, what="record")
    assert message in str(e.value) and str(e.value).startswith("record ")
    assert str(e.value).isprintable()


def test_deepest_json_that_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert depth(read_json(str(path))) == MAX_DEPTH


def test_yaml_is_read_as_yaml_does():
    text = "a: &x {b: 1, c: yes}\nd: {<<: *x, b: 2}\ne: [*x, *x, 0x10, 1e3, ~]\n"
    assert parse_yaml(text, "t") == yaml.safe_load(text)


def test_yaml_as_text_keeps_what_is_written():
    assert parse_yaml("names: [yes, No, on, 01, 1e3, 'x', ~, null]", "t", as_text=True) == {
        "names": ["yes", "No", "on", "01", "1e3", "x", "~", "null"]
    }


def test_yaml_with_a_byte_order_mark(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a.yaml").write_bytes("a: é".encode(encoding))
        assert read_yaml(str(tmp_path / "a.yaml")) == {"a": "é"}


def bomb(line):
    """Nine levels of nine aliases each: 9 ** 9 values in a few hundred bytes."""
    lines = ["a0: &a0 " + line.format(*["x"] * 9)]
    lines += [f"a{i}: &a{i} " + line.format(*[f"*a{i - 1}"] * 9) for i in range(1, 9)]
    return "\n".join(lines)


MERGES = "a0: &a0 {x: 1}\n" + "\n".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 9)
)


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize(
    "content, message",
    [
        (bomb("[{},{},{},{},{},{},{},{},{}]"), "more than 200000 values"),
        (bomb("{{a: {},b: {},c: {},d: {},e: {},f: {},g: {},h: {},i: {}}}"), "more than 200000"),
        (MERGES, "more than 200000 values"),
        ("a: &a [*a]", "the alias *a refers to a value that contains it"),
        ("a: &a {b: [*a]}", "the alias *a refers to a value that contains it"),
        ("[" * 1000, "nested deeper than 64 levels"),
        ("a: 1\nb: 2\na: 3", "t, line 1: the key 'a' is given twice"),
        ("a: *b", "undefined alias"),
        ("a: [1", "t, line 1: expected"),
        (b"a: \xff\xff", "is not YAML"),
        ("a: \x1b", "is not YAML"),
    ],
)
def test_other_yaml_is_refused_in_one_line(content, message, as_text):
    with pytest.raises(UserError) as e:
        parse_yaml(content, "t", as_text=as_text)
    assert message in str(e.value) and str(e.value).isprintable() and len(str(e.value)) < 300


@pytest.mark.parametrize(
    "content", ["!!python/object/apply:os.system [id]", "!!int x", "!!timestamp x", "{[1]: 2}"]
)
def test_python_objects_and_wrong_types_are_refused_in_one_line(content):
    with pytest.raises(UserError) as e:
        parse_yaml("a: " + content, "t")
    assert str(e.value).isprintable()


def test_names_in_messages():
    assert printable("é猫 a") == "é猫 a"
    assert printable("a\x1b[31m\n\udcff\u202e") == r"a\x1b[31m\n\udcff\u202e"
    assert one_line(ValueError("a\nb  c")) == "a b c" and one_line(ValueError()) == "ValueError"
    deep = []
    for _ in range(5000):
        deep = [deep]
    assert len(shown(deep)) < 100 and len(shown("x" * 1000)) < 100


def test_a_small_file_takes_little_memory(tmp_path):
    """`read` with the largest size that is taken would set aside all of that."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(DATA))
    tracemalloc.start()
    read_json(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6
