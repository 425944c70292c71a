"""Read YAML from other people within limits, and report errors in one line."""

from collections import Counter
from typing import Any, Dict

import yaml

from ..errors import UserError
from .json_files import read_regular_file
from .messages import one_line, printable, shown

MAX_BYTES = 4 << 20
MAX_DEPTH = 64
# Number of values in a file. An alias (`*name`) counts as all the values that it stands for.
MAX_VALUES = 200_000


def read_yaml(path: str, *, what: str = "", as_text: bool = False) -> Any:
    """
    Read a YAML file in UTF-8 or UTF-16, with or without a byte order mark.

    Args:
        path: a regular file.
        what: what the file is, for messages, such as "config".
        as_text: whether to return every scalar as a string, so that `yes`, `01` and `1e3` are not
            changed. Otherwise, numbers and truth values are converted by the rules of YAML 1.1.

    Raises:
        UserError: the file cannot be read, or see :func:`parse_yaml`.
    """
    content = read_regular_file(path, what=what, max_bytes=MAX_BYTES)
    return parse_yaml(content, f"{what} {printable(str(path))}".lstrip(), as_text=as_text)


def parse_yaml(content: bytes, name: str, *, as_text: bool = False) -> Any:
    """
    Parse YAML within the limits of this module.

    Args:
        content: text or bytes.
        name: name of the file, for messages.
        as_text: see :func:`read_yaml`.

    Raises:
        UserError: `content` is not YAML, names a Python object, repeats a key of a mapping, is
            nested deeper than `MAX_DEPTH` levels, or has more than `MAX_VALUES` values. The message
            is one line.
    """
    try:
        return yaml.load(content, Loader=_BoundedTextLoader if as_text else _BoundedLoader)
    except RecursionError:
        raise UserError(f"{name} is nested deeper than {MAX_DEPTH} levels") from None
    except yaml.MarkedYAMLError as e:
        line = f", line {e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UserError(f"{name}{line}: {printable(e.problem or one_line(e))}") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as e:
        raise UserError(f"{name} is not YAML: {one_line(e)}") from None


# The subclasses below also inherit from a loader of yaml, which mypy does not see here.
_Loader: Any = object


class _Bounded(_Loader):
    """
    Counts the values of a document while its nodes are composed, before any value is constructed.
    """

    def __init__(self, stream: Any):
        super().__init__(stream)
        self._depth = 0
        self._values = 0
        self._values_of: Dict[str, int] = {}  # anchor -> values that an alias stands for

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            # An alias within its own anchor, which is not complete yet, would have no end.
            values = self._values_of.get(
                event.anchor, 0 if event.anchor not in self.anchors else -1
            )
            if values < 0:
                raise _error(event, f"the alias *{event.anchor} refers to a value that contains it")
            self._values += values
        self._values += 1
        if self._values > MAX_VALUES:
            raise _error(event, f"more than {MAX_VALUES} values, if aliases are expanded")
        if self._depth == MAX_DEPTH:
            raise _error(event, f"nested deeper than {MAX_DEPTH} levels")
        before, self._depth = self._values, self._depth + 1
        try:
            node = super().compose_node(parent, index)
        finally:
            self._depth -= 1
        if not isinstance(event, yaml.AliasEvent) and event.anchor is not None:
            self._values_of[event.anchor] = self._values - before + 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in keys.items():
            if count > 1 and key != "<<":
                problem = f"the key {shown(key)} is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _error(event: yaml.Event, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


class _BoundedLoader(_Bounded, yaml.SafeLoader):
    pass


class _BoundedTextLoader(_Bounded, yaml.BaseLoader):
    pass
