from __future__ import annotations

import pytest

from paretune.core.text_files import parsed_json


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, b"[" * 100_000, "[" * 100_000 + "]" * 100_000])
def test_json_nested_without_end_is_no_json(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="beyond what can be read"):
        parsed_json(text)


def test_other_json_is_read() -> None:
    assert parsed_json('{"a": [1, 2.5, null]}') == parsed_json(b'{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
