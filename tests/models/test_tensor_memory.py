from __future__ import annotations

from pathlib import Path

import torch

import micro_task
from paretune.models.tensor_memory import TensorMemory

KB = 1000  # bytes of 250 numbers of fp32


def test_what_is_released_makes_room_for_what_comes_after() -> None:
    with TensorMemory() as memory:
        for _ in range(5):
            torch.ones(250) + 1  # one tensor is there while the next is made
    assert memory.peak_bytes == 2 * KB


def test_what_stays_adds_up() -> None:
    with TensorMemory() as memory:
        kept = [torch.ones(250) for _ in range(5)]
    assert memory.peak_bytes == len(kept) * KB


def test_views_share_a_storage_and_count_once() -> None:
    with TensorMemory() as memory:
        whole = torch.ones(250)
        parts = [whole[:100], whole.view(25, 10).T, whole.detach()]
    assert (len(parts), memory.peak_bytes) == (3, KB)


def test_work_in_place_takes_no_room() -> None:
    with TensorMemory() as memory:
        torch.ones(250).add_(1).mul_(2)
    assert memory.peak_bytes == KB


def test_what_was_there_before_counts_at_every_moment_also_before_it_is_read() -> None:
    before = torch.ones(500)
    with TensorMemory() as memory:
        torch.ones(750)  # gone when the other is read for the first time; both were there at once
        before.sum()
    assert memory.peak_bytes == 5 * KB


def test_tensors_made_of_numbers_of_pythons_are_gone_when_they_are_dropped() -> None:
    with TensorMemory() as memory:
        for _ in range(5):
            torch.tensor([1.0] * 250) * 2
    assert memory.peak_bytes == 2 * KB


def test_tensors_in_lists_count() -> None:
    parts = [torch.ones(250), torch.ones(250)]
    with TensorMemory() as memory:
        torch.cat(parts)
    assert memory.peak_bytes == 4 * KB


def test_one_pass_of_a_model_holds_its_parameters_and_little_more_and_repeats(tmp_path: Path) -> None:
    from paretune.models.loading import load_base

    base = load_base(str(micro_task.save_model(tmp_path / "model")), device="cpu")
    parameters = sum(each.numel() * each.element_size() for each in base.model.parameters())
    found = []
    for _ in range(3):
        with TensorMemory() as memory, torch.no_grad():
            base.model(torch.tensor([[1, 2, 3]]), use_cache=False)
        found.append(memory.peak_bytes)
    assert found[1:] == [found[1]] * 2
    # hidden states [1, 3, 16], of which a block of three layers of a gated MLP [1, 3, 32] holds about ten
    assert parameters < found[1] < parameters + 20 * 3 * 32 * 4
