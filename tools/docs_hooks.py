"""Hooks of mkdocs.yml, which fill the page of all config keys and clean up docstrings."""

import re
from pathlib import Path
from typing import List, Tuple

KEYS = Path(__file__).resolve().parent.parent / "libra_d2/config/keys.py"
PLACEHOLDER = "<!-- all keys -->"

Row = Tuple[str, str, str]  # key, default, comment


def on_page_markdown(markdown: str, **_) -> str:
    """Fill the page of all config keys from the code that defines them."""
    return markdown.replace(PLACEHOLDER, keys_list(KEYS.read_text()))


def on_page_content(html: str, **_) -> str:
    """Remove Sphinx's roles, such as in :func:`balanced_l1_loss`, which Markdown does not know."""
    return re.sub(r":(?:func|class|mod|meth|attr):(<code>)[~.]?", r"\1", html)


def keys_list(source: str) -> str:
    """List the keys that `cfg.A.B = value` defines, in Markdown, under a heading for each part."""
    lines: List[str] = []
    part = ""
    for key, default, comment in rows_of(source):
        comment = comment.replace("*", r"\*").replace("_", r"\_")
        if key.partition(".")[0] != part:
            part = key.partition(".")[0]
            lines += ["", f"## {part}", ""]
        if default:
            lines.append(f"- `{key}`, default `{default}`" + (f"<br>{comment}" if comment else ""))
        elif comment:
            lines += ["", f"**`{key}`**: {comment}", ""]
    return "\n".join(lines)


def rows_of(source: str) -> List[Row]:
    """Return the keys, and the nodes, which have no default, with the comments right above them."""
    rows: List[Row] = []
    comment: List[str] = []
    for line in source.splitlines():
        line = line.strip()
        assigned = re.fullmatch(r"cfg\.([A-Z][A-Z0-9_.]*) = (.+)", line)
        if line.startswith("#"):
            comment.append(line.lstrip("# "))
            continue
        if assigned:
            key, default = assigned.groups()
            rows.append((key, "" if default.startswith("CfgNode(") else default, " ".join(comment)))
        comment = []
    return rows
