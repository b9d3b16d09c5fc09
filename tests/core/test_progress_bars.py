from __future__ import annotations

import pytest
from transformers.utils import logging

from paretune.core.progress_bars import no_progress_bars, quiet_transformers


@pytest.mark.parametrize("shown", [True, False])
def test_bars_are_off_in_the_block_and_afterwards_as_they_were(shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "_tqdm_active", shown)
    with no_progress_bars():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled() is shown


def test_log_lines_are_off_in_the_block_and_afterwards_as_they_were() -> None:
    logger, before = logging.get_logger("transformers.paretune"), logging.get_verbosity()
    with quiet_transformers():
        assert not logger.isEnabledFor(logging.WARNING)
        assert logger.isEnabledFor(logging.ERROR)
    assert logging.get_verbosity() == before
    assert logger.isEnabledFor(logging.WARNING)
