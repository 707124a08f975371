"""Every erratum of the lectures carries a check, and every check holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "book" / "errata.md"
TEXT = PAGE.read_text(encoding="utf-8")
ENTRY = re.compile(
    r'<a id="(e\d+-\d+)"></a>\n### E(\d+\.\d+) (.*?)\n(.*?)(?=\n<a id=|\n## |\Z)', re.S
)
BLOCK = re.compile(r"```python\n(.*?)```", re.S)
ENTRIES = [(m[1], m[2], m[4]) for m in ENTRY.finditer(TEXT)]


def test_every_block_belongs_to_an_entry():
    assert len(ENTRIES) >= 20
    assert len(BLOCK.findall(TEXT)) == len(ENTRIES) == TEXT.count("\n### E")
    assert [n for _, n, _ in ENTRIES] == [a[1:].replace("-", ".") for a, _, _ in ENTRIES]


@pytest.mark.parametrize("number,body", [e[1:] for e in ENTRIES], ids=[e[1] for e in ENTRIES])
def test_erratum(number, body):
    for part in ("**Where.**", "**Right.**", "**Likely at fault.**", "**Check.**"):
        assert part in body, f"E{number} does not say {part}"
    (code,) = BLOCK.findall(body)
    assert "assert " in code and code.count("\n") <= 14
    exec(compile(code, f"errata.md, E{number}", "exec"), {"__name__": "errata"})


def test_a_wrong_check_fails():
    code = BLOCK.findall(TEXT)[0].replace("/ np.cosh(z)", "* np.cosh(z)")
    with pytest.raises(AssertionError):
        exec(compile(code, "planted bug", "exec"), {})
