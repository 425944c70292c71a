import json
from dataclasses import dataclass, field
from typing import Dict, List, Optional

import pytest

from libra_d2.utils.dataclass_json import WrongValueError, from_json, json_fields


@dataclass(frozen=True)
class Inner:
    kind: str = field(metadata={"key": "class"})
    score: Optional[float] = None


@dataclass(frozen=True)
class Outer:
    inner: Inner
    lists: List[List[int]]
    named: Dict[str, Inner]
    maybe: Optional[int]
    more: List[str] = field(default_factory=list)


WHOLE = Outer(Inner("cat", 0.5), [[1], []], {"a": Inner("dog")}, None, ["x"])


def written(value):
    return json.loads(json.dumps(value, default=json_fields))


def test_what_is_read_equals_what_was_written():
    content = written(WHOLE)
    assert content["inner"] == {"class": "cat", "score": 0.5}
    assert content["named"] == {"a": {"class": "dog"}}  # without a score
    assert content["maybe"] is None  # it has no default
    assert from_json(Outer, content) == WHOLE


def test_fields_with_a_default_may_be_missing_and_others_be_there():
    content = written(WHOLE)
    del content["more"]
    assert from_json(Outer, {**content, "unknown": 1}).more == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": 3}, "inner must be an object, got 3"),
        ({"inner": {}}, "inner.class is missing"),
        ({"lists": [[1], [True]]}, "lists[1][0] must be an integer, got True"),
        ({"named": {"a": {"class": 1}}}, "named['a'].class must be a string, got 1"),
        ({"maybe": "\x1b"}, "maybe must be an integer, got '\\x1b'"),
        ({"more": None}, "more must be a list, got None"),
        ({"inner": {"class": "", "score": float("inf")}}, "inner.score must be a number, got inf"),
    ],
)
def test_a_wrong_value_is_named(change, message):
    with pytest.raises(WrongValueError) as e:
        from_json(Outer, {**written(WHOLE), **change})
    assert str(e.value) == message
