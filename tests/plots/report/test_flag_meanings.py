"""Each quality flag that the documentation lists has a sentence in the report."""

from __future__ import annotations

import re

import pytest

from src.plots.report.flag_meanings import FLAG_MEANINGS
from src.utils import PROJECT_ROOT


@pytest.mark.parametrize("page", ["quality.md", "output_files.md"])
def test_each_flag_of_the_documentation_has_a_sentence(page: str) -> None:
    text = (PROJECT_ROOT / "docs" / page).read_text(encoding="utf-8")
    [table] = re.findall(r"^[|] flag [|] mea[^\n]*\n[|-]+\n((?:[|].*\n)+)", text, re.MULTILINE)
    first_cells = [row.split("|")[1] for row in table.splitlines()]
    kinds = {kind for cell in first_cells for kind in re.findall(r"`([A-Za-z0-9_]+)", cell)}
    assert len(kinds) > 10 and kinds <= FLAG_MEANINGS.keys()


def test_meanings_are_sentences() -> None:
    assert all(text[0].isupper() and text.endswith(".") for text in FLAG_MEANINGS.values())
