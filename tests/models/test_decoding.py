from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import micro_task
from paretune.core.errors import ModelError, ShapeError
from paretune.core.seeds import prompt_key, row_keys, uniforms
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.decoding import Rollout, draw, keep_nucleus, sample
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs

CLOSE = 2e-5  # of log-probabilities down to -15: sums over cached and uncached keys in another order, fp32
BOUNDARY = 1e-4  # how near a draw must be to the edge of a token's interval to excuse another token
PROMPTS = [(1, 2, 3, 4, 5), (6,), (1, 2, 3, 4, 5), (7, 2), (3, 3, 1), (7, 2), (1, 2, 3, 4, 5), (5, 1, 1, 2)]
EXPERTS, NEW = 3, 8


def bank_of(base: BaseModel) -> ExpertBank:
    return micro_task.perturb(ExpertBank(base, EXPERTS, rank=2), scale=0.2)


def gates(rows: int, kinds: int = 2, seed: int = 0) -> Tensor:
    """Weights of each row, of a few kinds so that some rows share theirs."""
    table = torch.rand(kinds, EXPERTS, generator=torch.Generator().manual_seed(seed))
    return table[torch.arange(rows) % kinds]


def keys(rows: int, seed: int = 0) -> Any:
    return row_keys(seed, 0, [prompt_key(PROMPTS[row % len(PROMPTS)]) for row in range(rows)], range(rows))


def layout(kind: str, rows: int) -> Mixing:
    if kind == "rows":
        return Mixing.of_rows(gates(rows))
    return Mixing.reference(rows) if kind == "reference" else Mixing.population(EXPERTS, rows // 2, members=(2, 0))


def texts(rollout: Rollout) -> list[tuple[int, ...]]:
    sizes = rollout.lengths.tolist()
    return [tuple(ids[:size]) for ids, size in zip(rollout.token_ids.tolist(), sizes, strict=True)]


def next_token_table(base: BaseModel, bank: ExpertBank, weights: Tensor, ids: tuple[int, ...]) -> Tensor:
    """Return the probabilities of the next token, `[V]`, by one plain pass over one row."""
    with torch.no_grad(), bank.using(Mixing.of_rows(weights[None])):
        logits: Tensor = base.model(torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits.softmax(dim=-1)


@pytest.mark.parametrize("kind", ["rows", "population", "reference"])
def test_sampled_log_probs_are_those_of_one_uncached_pass(any_base: BaseModel, kind: str) -> None:
    bank = bank_of(any_base)
    mixing = layout(kind, len(PROMPTS))
    rollout = sample(any_base, bank, PROMPTS, mixing, keys(len(PROMPTS)), NEW)
    weights = torch.zeros(len(PROMPTS), EXPERTS) if kind == "reference" else mixing.dense()
    assert len(set(rollout.lengths.tolist())) > 1  # some rows left early
    for row, ids in enumerate(texts(rollout)):
        for place, token in enumerate(ids):
            table = next_token_table(any_base, bank, weights[row], (*PROMPTS[row], *ids[:place]))
            assert float(rollout.log_probs[row, place]) == pytest.approx(float(table[token].log()), abs=CLOSE)


@pytest.mark.parametrize("kind", ["rows", "population", "reference"])
@pytest.mark.parametrize("share", [True, False])
def test_sampled_log_probs_are_those_of_scoring(any_base: BaseModel, kind: str, share: bool) -> None:
    bank = bank_of(any_base)
    mixing = layout(kind, len(PROMPTS))
    rollout = sample(any_base, bank, PROMPTS, mixing, keys(len(PROMPTS)), NEW)
    with torch.no_grad():
        scored = completion_log_probs(
            any_base, bank, mixing, PROMPTS, rollout.token_ids, rollout.lengths, share_prompts=share
        )
    torch.testing.assert_close(rollout.log_probs, scored, rtol=0, atol=CLOSE)


def test_every_token_is_the_one_its_noise_points_at(llama: BaseModel) -> None:
    bank, rows = bank_of(llama), len(PROMPTS)
    weights, noise = gates(rows), uniforms(keys(rows), 0, NEW)
    rollout = sample(llama, bank, PROMPTS, Mixing.of_rows(weights), keys(rows), NEW)
    for row, ids in enumerate(texts(rollout)):
        for place, token in enumerate(ids):
            edges = next_token_table(llama, bank, weights[row], (*PROMPTS[row], *ids[:place])).cumsum(dim=0)
            low = float(edges[token - 1]) if token else 0.0
            assert low - BOUNDARY <= noise[row, place] <= float(edges[token]) + BOUNDARY


def test_finished_rows_end_with_the_end_and_hold_nothing_behind_it(llama: BaseModel) -> None:
    rows = 64
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(rows)]
    rollout = sample(llama, bank_of(llama), prompts, Mixing.population(EXPERTS, 32, (0, 1)), keys(rows), NEW)
    assert 5 < int(rollout.ended.sum()) < 60
    assert rollout.token_ids.shape[1] == int(rollout.lengths.max())
    for row in range(rows):
        size, ended = int(rollout.lengths[row]), bool(rollout.ended[row])
        ids = rollout.token_ids[row].tolist()
        assert (ids[size - 1] == micro_task.END) == ended
        assert micro_task.END not in ids[: size - 1]
        assert size == NEW or ended
        assert not any(ids[size:])  # the pad id is 0 here
        assert not rollout.log_probs[row, size:].any()
        assert (rollout.log_probs[row, :size] < 0).all()
    assert (rollout.latency_seconds > 0).all()
    order = np.argsort(rollout.latency_seconds, kind="stable")
    assert (np.diff(rollout.lengths.numpy()[order]) >= 0).all()  # who ends earlier has waited less


def near_boundary(base: BaseModel, bank: ExpertBank, weights: Tensor, prompt: tuple[int, ...], one: tuple[int, ...],
                  other: tuple[int, ...], noise: np.ndarray) -> bool:  # fmt: skip
    """Tell whether two texts part at a draw within 1e-4 of the edge of an interval."""
    place = next(place for place in range(NEW) if one[place : place + 1] != other[place : place + 1])
    edges = next_token_table(base, bank, weights, (*prompt, *one[:place])).cumsum(dim=0)
    return bool((edges - noise[place]).abs().min() < BOUNDARY)


@pytest.mark.parametrize(
    "any_base", ["llama", "mistral", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gpt2", "falcon"))],
    indirect=True,
)  # fmt: skip
def test_texts_do_not_depend_on_batch_order_sharing_or_who_leaves(any_base: BaseModel) -> None:
    bank, rows = bank_of(any_base), 512
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(rows)]
    weights, noise = gates(rows, kinds=3), keys(rows)
    draws = uniforms(noise, 0, NEW)
    expected = texts(sample(any_base, bank, prompts, Mixing.of_rows(weights), noise, NEW))
    shuffled = np.random.default_rng(0).permutation(rows)

    def parts(order: np.ndarray, size: int, **settings: Any) -> dict[int, tuple[int, ...]]:
        found = {}
        for start in range(0, rows, size):
            index = order[start : start + size]
            mixing = Mixing.of_rows(weights[index.tolist()])
            part = sample(any_base, bank, [prompts[row] for row in index], mixing, noise[index], NEW, **settings)
            found.update(zip(index.tolist(), texts(part), strict=True))
        return found

    in_order = np.arange(rows)
    others = [parts(in_order, 8), parts(in_order, 100), parts(shuffled, 512), parts(in_order, 512, share_prefill=False)]
    differing = 0
    for other in others:
        for row in range(rows):
            if other[row] != expected[row]:
                differing += 1
                assert near_boundary(
                    any_base, bank, weights[row], prompts[row], expected[row], other[row], draws[row]
                )  # fmt: skip
    assert differing <= 0.001 * len(others) * rows


def test_a_population_says_the_same_as_rows_of_its_experts(llama: BaseModel) -> None:
    bank, rows = bank_of(llama), 60
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(rows)]
    population = Mixing.population(EXPERTS, rows // EXPERTS)
    one = sample(llama, bank, prompts, population, keys(rows), NEW)
    other = sample(llama, bank, prompts, Mixing.of_rows(population.dense()), keys(rows), NEW)
    for row, (mine, theirs) in enumerate(zip(texts(one), texts(other), strict=True)):
        assert mine == theirs or near_boundary(
            llama, bank, population.dense()[row], prompts[row], mine, theirs, uniforms(keys(rows), 0, NEW)[row]
        )


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.6), (0.7, 0.8)])
def test_frequencies_agree_with_probabilities(llama: BaseModel, temperature: float, top_p: float) -> None:
    bank, rows = bank_of(llama), 4000
    weights = gates(1, 1)
    noise = row_keys(1, 0, 0, range(rows))
    rollout = sample(
        llama, bank, [PROMPTS[0]] * rows, Mixing.of_rows(weights.expand(rows, -1)), noise, 2,
        torch.full((rows,), temperature), torch.full((rows,), top_p),
    )  # fmt: skip

    def warped(prefix: tuple[int, ...]) -> dict[int, float]:
        table = next_token_table(llama, bank, weights[0], (*PROMPTS[0], *prefix)).double() ** (1 / temperature)
        table /= table.sum()
        kept, mass = {}, 0.0
        for token in table.argsort(descending=True).tolist():
            if mass >= top_p:
                break
            kept[token] = float(table[token])
            mass += kept[token]
        return {token: chance / mass for token, chance in kept.items()}

    expected: dict[tuple[int, ...], float] = {}
    for first, chance in warped(()).items():
        if first == micro_task.END:
            expected[(first,)] = chance
        else:
            expected.update({(first, second): chance * then for second, then in warped((first,)).items()})
    seen = Counter(texts(rollout))
    assert set(seen) <= set(expected)
    likely = [ids for ids, chance in expected.items() if chance * rows >= 5]  # the usual rule for chi-square
    counts = [seen[ids] for ids in likely] + [rows - sum(seen[ids] for ids in likely)]
    wanted = [expected[ids] * rows for ids in likely] + [rows - sum(expected[ids] for ids in likely) * rows]
    if wanted[-1] < 5:  # what is too rare to be a cell of its own
        counts, wanted = counts[:-1], wanted[:-1]
        wanted = [each * sum(counts) / sum(wanted) for each in wanted]
    assert stats.chisquare(counts, wanted).pvalue > 1e-3  # the noise is fixed: one of 1,000 seeds would fail


def test_rows_of_one_batch_have_their_own_temperature_and_top_p(llama: BaseModel) -> None:
    bank, rows = bank_of(llama), 24
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(rows)]
    heats = torch.tensor([0.5, 1.0, 1.7]).repeat(8)
    masses = torch.tensor([1.0, 0.5]).repeat(12)
    weights = gates(rows)
    together = sample(llama, bank, prompts, Mixing.of_rows(weights), keys(rows), NEW, heats, masses)
    for row, ids in enumerate(texts(together)):
        alone = sample(
            llama, bank, prompts[row : row + 1], Mixing.of_rows(weights[row : row + 1]), keys(rows)[row : row + 1], NEW,
            heats[row : row + 1], masses[row : row + 1],
        )  # fmt: skip
        assert texts(alone) == [ids]
        torch.testing.assert_close(
            alone.log_probs[0], together.log_probs[row, : alone.log_probs.shape[1]], rtol=0, atol=CLOSE
        )


def test_a_vanishing_top_p_takes_the_most_likely_token(llama: BaseModel) -> None:
    bank = bank_of(llama)
    rollout = sample(
        llama, bank, PROMPTS, Mixing.of_rows(gates(8)), keys(8), NEW, top_p=torch.full((8,), 1e-6)
    )  # fmt: skip
    for row, ids in enumerate(texts(rollout)):
        for place, token in enumerate(ids):
            table = next_token_table(llama, bank, gates(8)[row], (*PROMPTS[row], *ids[:place]))
            assert token == int(table.argmax())


def test_a_window_of_four_tokens_matters_and_takes_the_other_cache(folders: dict[str, Path]) -> None:
    from paretune.models.loading import load_base

    mistral, llama = (load_base(str(folders[kind]), device="cpu") for kind in ("mistral", "llama"))
    assert llama.full_attention
    assert not mistral.full_attention
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 1, 2, 3]])
    changed = torch.cat([torch.tensor([[7]]), ids[:, 1:]], dim=1)
    # with two layers a token sees at most 2 x 3 tokens back: the first of ten cannot matter
    assert mistral.model(ids).logits[0, -1].equal(mistral.model(changed).logits[0, -1])


def test_the_base_model_alone_is_sampled_without_a_bank_and_beside_one(llama: BaseModel) -> None:
    plain = sample(llama, None, PROMPTS, Mixing.reference(8), keys(8), NEW)
    bank_of(llama)  # wraps the same model
    beside = sample(llama, None, PROMPTS, Mixing.reference(8), keys(8), NEW)
    assert texts(plain) == texts(beside)
    assert plain.log_probs.equal(beside.log_probs)
    scored = completion_log_probs(llama, None, Mixing.reference(8), PROMPTS, plain.token_ids, plain.lengths)
    torch.testing.assert_close(scored, plain.log_probs, rtol=0, atol=CLOSE)


def test_one_token_may_be_asked_for(llama: BaseModel) -> None:
    rollout = sample(llama, bank_of(llama), PROMPTS, Mixing.of_rows(gates(8)), keys(8), 1)
    assert rollout.token_ids.shape == (8, 1)
    assert rollout.lengths.tolist() == [1] * 8


def test_the_context_may_be_filled_to_its_last_token_and_no_further(llama: BaseModel) -> None:
    prompt = [(1,) * 24]
    assert sample(llama, None, prompt, Mixing.reference(1), keys(1), 8).token_ids.shape[0] == 1
    with pytest.raises(ModelError, match=r"context of 32 tokens, got 24 and 9\. Lower max_prompt_tokens"):
        sample(llama, None, prompt, Mixing.reference(1), keys(1), 9)


def test_rows_that_disagree_are_refused(llama: BaseModel) -> None:
    bank = bank_of(llama)
    with pytest.raises(ShapeError, match="non-empty lists of token ids"):
        sample(llama, bank, [], Mixing.reference(0), keys(0), 2)
    with pytest.raises(ShapeError, match="non-empty lists of token ids"):
        sample(llama, bank, [(1,), ()], Mixing.reference(2), keys(2), 2)
    with pytest.raises(ShapeError, match=r"one row per prompt \(2\), got 3, 2"):
        sample(llama, bank, PROMPTS[:2], Mixing.reference(2), keys(3), 2)
    with pytest.raises(ShapeError, match=r"one row per prompt \(2\), got 2, 3"):
        sample(llama, bank, PROMPTS[:2], Mixing.reference(3), keys(2), 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": [0.0, 1.0]}, r"temperature must be positive, one per row \(2\), got \[0.0, 1.0\]"),
        ({"temperature": [torch.nan, 1.0]}, "temperature must be positive"),
        ({"top_p": [0.0, 1.0]}, r"top_p must be in \(0, 1\]"),
        ({"top_p": [1.5, 1.0]}, r"top_p must be in \(0, 1\], one per row \(2\), got \[1.5, 1.0\]"),
        ({"top_p": [0.5]}, r"one per row \(2\), got \[0.5\]"),
        ({"top_p": [1.0]}, r"one per row \(2\), got \[1.0\]"),
    ],
)
def test_temperature_and_top_p_out_of_range_are_refused(
    llama: BaseModel, settings: dict[str, list[float]], message: str
) -> None:
    tensors: dict[str, Any] = {name: torch.tensor(value) for name, value in settings.items()}
    with pytest.raises(ShapeError, match=message):
        sample(llama, None, PROMPTS[:2], Mixing.reference(2), keys(2), 2, **tensors)


def test_a_draw_inverts_the_cumulative_distribution() -> None:
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(6, 3)
    noise = torch.tensor([1e-12, 0.19, 0.21, 0.69, 0.71, 1 - 1e-12], dtype=torch.float64)
    tokens, log_probs = draw(logits, noise)
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(log_probs.exp(), torch.tensor([0.2, 0.2, 0.5, 0.5, 0.3, 0.3]))


def test_a_draw_never_takes_an_impossible_token() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(4, 5)
    noise = torch.tensor([2.0**-53, 0.5, 0.5 + 1e-9, 1 - 1e-16], dtype=torch.float64)
    assert set(draw(logits, noise)[0].tolist()) <= {1, 3}


def test_log_probs_of_a_draw_are_those_at_temperature_1_without_top_p() -> None:
    logits = torch.tensor([[0.7, 0.2, 0.1]]).log()
    tokens, log_probs = draw(
        logits, torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.3]), torch.tensor([0.1])
    )  # fmt: skip
    assert tokens.tolist() == [0]
    assert float(log_probs.exp()) == pytest.approx(0.7, abs=1e-6)  # fp32


def test_a_nucleus_is_the_fewest_tokens_that_reach_the_mass() -> None:
    table = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).expand(4, 4)
    kept = keep_nucleus(table, torch.tensor([0.4, 0.6, 0.8, 1.0])) > 0
    assert kept.tolist() == [[0, 1, 0, 0], [0, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]]


@pytest.mark.gpu
def test_a_gpu_decodes_the_same_distribution_in_bf16(folders: dict[str, Path]) -> None:
    from paretune.models.loading import load_base

    base = load_base(str(folders["llama"]), device="cuda", dtype=torch.bfloat16)
    bank, rows = bank_of(base), 64
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(rows)]
    mixing = Mixing.of_rows(gates(rows).cuda())
    rollout = sample(base, bank, prompts, mixing, keys(rows), NEW)
    again = sample(base, bank, prompts, mixing, keys(rows), NEW)
    assert rollout.token_ids.equal(again.token_ids)
    with torch.no_grad():
        scored = completion_log_probs(base, bank, mixing, prompts, rollout.token_ids, rollout.lengths)
    # bf16 logits of up to 4 have steps of 2^-6; two passes differ by a few of them
    torch.testing.assert_close(rollout.log_probs, scored, rtol=0, atol=0.15)
    bank.unwrap()


def test_a_token_that_ends_and_pads_draws_no_warning_of_a_missing_mask_and_samples_the_same(
    any_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import modeling_utils

    prompts = [(1, 2, 3, 0)] * 6  # all of one length: no mask is needed
    plain = sample(any_base, None, prompts, Mixing.reference(6), keys(6), NEW, end_ids=())
    warned: list[str] = []
    monkeypatch.setattr(modeling_utils.logger, "warning_once", warned.append)
    monkeypatch.setattr(any_base.model.config, "pad_token_id", 0)
    again = sample(any_base, None, prompts, Mixing.reference(6), keys(6), NEW, end_ids=())
    assert bool((again.token_ids == 0).any())  # it was drawn, too, and read again
    assert warned == []
    assert texts(again) == texts(plain)
