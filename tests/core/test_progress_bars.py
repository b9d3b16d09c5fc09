from __future__ import annotations

import pytest
from transformers.utils import logging

from paretune.core.progress_bars import no_progress_bars


@pytest.mark.parametrize("shown", [True, False])
def test_bars_are_off_in_the_block_and_afterwards_as_they_were(shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "_tqdm_active", shown)
    with no_progress_bars():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled() is shown
