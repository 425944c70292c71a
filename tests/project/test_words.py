"""Words that a reader has to decode are not in the project."""

import re

from ..support.project import ROOT

FOLDERS = ("libra_d2", "tests", "docs", "configs", "tools", "benchmarks", "examples")
SUFFIXES = (".py", ".md", ".yaml", ".toml", ".html", ".js", ".css")
# In pieces, so that this file does not contain them.
DECODED = re.compile(
    "|".join(["an" + "ew", "m" + r"ended?\b", "is ri" + 'ght"', "is the le" + "ast"])
)


def test_words_are_plain():
    paths = [*ROOT.iterdir(), *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*"))]
    texts = [p for p in paths if p.suffix in SUFFIXES and p.name != "CHANGELOG.md"]
    assert len(texts) > 500
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if DECODED.search(line)
    ]
    assert not found
