"""Compare the settings of a checkpoint with the current ones."""

from typing import Any, Dict, Sequence

from ..config.flattening import flat
from ..errors import UserError
from ..utils.messages import printable
from ..utils.yaml_files import parse_yaml

MAX_LENGTH = 80  # characters of a value in a message

# These keys describe only where a run is computed and where its files are written.
_OF_THE_PLACE = ("OUTPUT_DIR", "OUTPUT_BRIEF", "LIBRA_VERSION", "MODEL.DEVICE", "VERSION")


def changed_settings(before: str, now: str, prefixes: Sequence[str] = ("",)) -> Dict[str, str]:
    """
    Find the keys whose values differ between two configs.

    Args:
        before, now: configs as YAML. If one is empty or damaged, no changes are reported.
        prefixes: prefixes of the keys to compare.

    Returns:
        A dict that maps each changed key to "old -> new".
    """
    try:
        old, new = (flat(parse_yaml(text.encode(), "config")) for text in (before, now))
    except UserError:
        return {}
    return {
        key: f"{_text(old[key])} -> {_text(value)}"
        for key, value in new.items()
        if key in old
        and old[key] != value
        and key not in _OF_THE_PLACE
        and key.startswith(tuple(prefixes))
    }


def listed(changes: Dict[str, str]) -> str:
    return ", ".join(f"{key} {change}" for key, change in changes.items())


def _text(value: Any) -> str:
    text = printable(repr(tuple(value) if isinstance(value, list) else value))
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."
