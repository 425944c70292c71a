"""The settings and notes that the rules of a plan return."""

from typing import Any, List, NamedTuple, Union


class Setting(NamedTuple):
    """A value for a key of the config, and the reason for it in one line."""

    key: str
    value: Any
    why: str


class Note(NamedTuple):
    """Something that the user should know, but that sets no key."""

    text: str


Advice = List[Union[Setting, Note]]
