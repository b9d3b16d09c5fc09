from __future__ import annotations

import re
from pathlib import Path

from paretune.core import limits


def test_every_limit_is_listed_in_the_docs_with_its_number() -> None:
    text = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    section = text.split("## Limits", 1)[1].split("\n## ", 1)[0]
    listed = [int(number.replace(",", "")) for number in re.findall(r"^\| .* \| ([0-9,]+) \|", section, re.MULTILINE)]
    known = [value for name, value in vars(limits).items() if name.startswith("MAX_")]
    assert sorted(listed) == sorted(known)
