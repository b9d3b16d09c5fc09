from __future__ import annotations

from collections.abc import Mapping

import pytest

from paretune.core.model_config import context_limit


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024}, 1024),  # GPT-2's older name
        ({"max_position_embeddings": None, "n_positions": 1024}, 1024),
        ({"max_position_embeddings": 77, "text_config": {"max_position_embeddings": 4096}}, 4096),  # the text's counts
        ({"max_position_embeddings": 2048, "text_config": None}, 2048),
        ({"text_config": {}}, None),
        ({}, None),  # as ALiBi models, which have none
    ],
)
def test_context_is_what_the_configuration_of_the_text_model_says(
    config: Mapping[str, object], limit: int | None
) -> None:
    assert context_limit(config) == limit
