"""docs/studies.md shows the evidence as it is."""

from __future__ import annotations

from studies.page import DOCS, PAGE, filled
from studies.rows import read, row

ROWS = [
    row("one", "here", "a", "macro_auc", [0.5, 0.7]),
    row("one", "there", "b", "macro_auc", [0.25]),
    row("one", "here", "a", "macro_auc above b", [0.1, 0.3], goal=0.3),
]


def test_a_part_is_made_anew_and_the_prose_stays() -> None:
    page = filled("Why.\n<!-- study: one -->\nold\n<!-- end -->\nSo.\n", ROWS)
    assert page.startswith("Why.\n<!-- study: one -->\n")
    assert page.endswith("<!-- end -->\nSo.\n")
    assert "old" not in page
    assert "| macro AUC, 2 seeds | here | there |" in page
    assert "| a | 0.600 ± 0.141 |  |" in page
    assert "| b |  | 0.250 |" in page
    assert "| here | a | macro AUC above b | 0.200 ± 0.141 | 0.3 | **no** |" in page
    assert filled(page, ROWS) == page


def test_a_study_that_was_not_run_says_so() -> None:
    assert "Not run yet." in filled("<!-- study: two -->\n<!-- end -->", ROWS)


def test_the_page_is_of_the_evidence() -> None:
    text, rows = PAGE.read_text(encoding="utf-8"), read()
    assert filled(text, rows) == text
    for study in {one.study for one in rows}:
        assert f"<!-- study: {study} -->" in text
        assert (DOCS / f"studies-{study}.svg").stat().st_size > 1000
