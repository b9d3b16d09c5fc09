from __future__ import annotations

import torch

from paretune.models.mixing import Mixing
from paretune.models.readers.streams import Streams


def test_streams_are_of_the_experts_that_any_row_weighs() -> None:
    mixing = Mixing.of_log_probs(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.25, 0.75]]))
    streams = Streams(mixing)
    assert (streams.members, streams.reference, len(streams)) == ((1, 2), False, 2)
    assert streams.weights(mixing).tolist() == [[1, 0], [0.25, 0.75]]
    assert streams.weights(mixing.rows(torch.tensor([1]))).tolist() == [[0.25, 0.75]]
    assert streams.mixing(2).dense().tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert streams.mixing(2) is streams.mixing(2)


def test_the_base_model_has_a_stream_where_weights_leave_it_something() -> None:
    mixing = Mixing.of_log_probs(torch.tensor([[0.5, 0.25], [0.5, 0.5]]))
    streams = Streams(mixing)
    assert (streams.members, streams.reference) == ((0, 1), True)
    assert streams.weights(mixing).tolist() == [[0.5, 0.25, 0.25], [0.5, 0.5, 0]]
    assert streams.mixing(1).dense().tolist() == [[1, 0], [0, 1], [0, 0]]
    nothing = Mixing.of_log_probs(torch.zeros(1, 2))
    assert Streams(nothing).weights(nothing).tolist() == [[1]]
    assert Streams(nothing).mixing(3).is_reference


def test_hidden_states_leave_the_base_model_what_a_scale_takes() -> None:
    half = Mixing.of_hidden_states(torch.tensor([[1.0, 0.5]]), scale=torch.tensor([0.25]))
    assert Streams(half).weights(half).tolist() == [[0.25, 0.125, 0.75]]
    plain = Mixing.of_hidden_states(torch.tensor([[1.0, 0.5]]))
    assert Streams(plain).weights(plain).tolist() == [[1, 0.5]]
    nothing = Mixing.of_hidden_states(torch.zeros(1, 2))
    assert Streams(nothing).weights(nothing).tolist() == [[0]]  # as it is weighed


def test_rows_are_expert_major() -> None:
    streams = Streams(Mixing.of_log_probs(torch.tensor([[0.5, 0.5]])))
    assert streams.cache_rows(torch.tensor([2, 0]), 3).tolist() == [2, 0, 5, 3]
    ids = torch.tensor([[1], [2]])
    spread = streams.spread({"input_ids": ids, "attention_mask": None, "use_cache": False})
    assert spread.pop("input_ids").tolist() == [[1], [2], [1], [2]]
    assert spread == {"attention_mask": None, "use_cache": False}
