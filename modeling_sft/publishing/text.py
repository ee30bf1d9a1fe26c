"""Reading the tables of a Markdown text."""

import re
from collections.abc import Iterator


def rows_under(text: str, words: str) -> Iterator[list[str]]:
    """The rows of all tables under the headings that contain some words, in any case, as their cells."""
    level = 0  # of the heading with the words that the line stands under; 0 for none
    for line in text.splitlines():
        heading = re.match(r"(#+)\s+(.*)", line)
        if heading and (level == 0 or len(heading[1]) <= level):
            level = len(heading[1]) if words.lower() in heading[2].lower() else 0
        elif level and line.lstrip().startswith("|"):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]
