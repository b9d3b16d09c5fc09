from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gated
import micro_task
from paretune.core.errors import ConfigError, ShapeError
from paretune.core.preference_text import PreferenceText
from paretune.core.prompt_format import PromptFormat
from paretune.core.protocols import Mixer
from paretune.models import policy as policy_module
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.completions import Completions
from paretune.models.policy import Policy

PREFERENCES = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]])
PROMPTS = ["a b c", "d", "e f", "a b c"]
CLOSE = 2e-5  # log-probabilities of cached and uncached passes, fp32


def policy_of(base: BaseModel, template: str = "{prompt} g", rows: int = 3) -> Policy:
    bank = micro_task.perturb(ExpertBank(base, 2, rank=2))
    return Policy(base, bank, PromptFormat(template), 4, 6, PREFERENCES[:rows], ["combined"] * rows, PREFERENCES[:rows])


def by_row(completions: Completions) -> dict[tuple[int, int, int], tuple[tuple[int, ...], str]]:
    return {
        row_id: (completions.ids(row), completions.texts[row]) for row, row_id in enumerate(completions.row_ids)
    }  # fmt: skip


def test_samples_of_a_prompt_lie_next_to_each_other(llama: BaseModel) -> None:
    made = policy_of(llama).generate(PROMPTS, [2, 0, 1, 2], samples=3)
    assert made.row_ids == tuple(
        (owner, prompt, sample) for prompt, owner in enumerate([2, 0, 1, 2]) for sample in range(3)
    )  # fmt: skip
    assert made.prompt_ids[3] == (4, 7)  # "d g"
    assert len(made.texts) == len(made.finish) == len(made.latency_seconds) == 12


def test_texts_are_the_sampled_ids_without_the_end(llama: BaseModel) -> None:
    made = policy_of(llama).generate(PROMPTS * 8, [0] * 32)
    for row, text in enumerate(made.texts):
        ids = made.ids(row)
        assert text == micro_task.text_of(ids)
        assert made.finish[row] == ("stop" if ids[-1] == micro_task.END else "length")
    assert set(made.finish) == {"stop", "length"}


def test_more_prompts_other_preferences_and_smaller_batches_leave_a_row_as_it_is(
    llama: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policy_of(llama)
    few = by_row(policy.generate(PROMPTS, [0, 1, 2, 1], samples=4, seed=3))
    many = by_row(policy.generate([*PROMPTS, "g g", "b"], [0, 1, 2, 1, 2, 2], samples=6, seed=3))
    assert {row: many[row] for row in few} == few
    monkeypatch.setattr(policy_module, "ROWS_AT_ONCE", 5)
    assert by_row(policy.generate(PROMPTS, [0, 1, 2, 1], samples=4, seed=3)) == few


def test_equal_prompts_with_equal_seeds_share_their_noise(llama: BaseModel) -> None:
    made = policy_of(llama).generate(PROMPTS, [0, 0, 0, 0], samples=4)
    assert made.texts[:4] == made.texts[12:]
    other = policy_of(llama).generate(PROMPTS, [0, 0, 0, 0], samples=4, seed=[0, 0, 0, 1])
    assert other.texts[:12] == made.texts[:12]
    assert other.texts[12:] != made.texts[12:]


def test_numbers_of_numpy_are_understood_one_for_all_or_one_per_prompt(llama: BaseModel) -> None:
    policy = policy_of(llama)
    plain = policy.generate(PROMPTS, [0] * 4, seed=3, temperature=0.5)
    for seed, temperature in ((np.int64(3), np.float32(0.5)), (np.full(4, 3), torch.full((4,), 0.5)), ([3] * 4, 0.5)):
        made = policy.generate(PROMPTS, [0] * 4, seed=seed, temperature=temperature)  # type: ignore[arg-type]  # of numpy
        assert made.texts == plain.texts
    for broken, got in (("abcd", "'abcd'"), (None, "None"), ([0, 1], "2"), ([0, 1, "2", 3], r"\[0, 1, '2', 3\]")):
        with pytest.raises(ShapeError, match=rf"seed must be one number or one per prompt \(4\), got {got}\."):
            policy.generate(PROMPTS, [0] * 4, seed=broken)  # type: ignore[arg-type]  # what is refused


def test_rows_may_differ_in_preference_seed_temperature_and_top_p(llama: BaseModel) -> None:
    policy = policy_of(llama)
    made = policy.generate(PROMPTS, [0, 1, 2, 0], 4, [0.5, 1.0, 2.0, 1.0], [1.0, 0.5, 1.0, 0.9], [1, 2, 3, 4])
    for prompt, (owner, heat, mass, seed) in enumerate([(0, 0.5, 1, 1), (1, 1, 0.5, 2), (2, 2, 1, 3), (0, 1, 0.9, 4)]):
        alone = policy.generate([PROMPTS[prompt]], [owner], 4, heat, mass, seed)
        assert alone.texts == made.texts[4 * prompt : 4 * prompt + 4]


def test_log_probs_are_those_of_scoring_and_the_reference_is_the_base_model(llama: BaseModel) -> None:
    policy = policy_of(llama)
    made = policy.generate(PROMPTS, [0, 1, 2, 0], samples=3, reference=True)
    torch.testing.assert_close(policy.log_probs(made), made.log_probs, rtol=0, atol=CLOSE)
    base = Policy(llama, None, policy.prompt_format, 4, 6, PREFERENCES[:1], ["reference"], np.zeros((1, 0)))
    alone = Completions(**{**vars(made), "row_ids": tuple((0, prompt, n) for _, prompt, n in made.row_ids)})
    torch.testing.assert_close(base.log_probs(alone), made.reference_log_probs, rtol=0, atol=CLOSE)
    assert (made.log_probs - made.reference_log_probs).abs().max() > 0.1


def test_reference_log_probs_are_missing_unless_asked_for(llama: BaseModel) -> None:
    assert policy_of(llama).generate(["a"], [0]).reference_log_probs.isnan().all()


def test_next_token_log_probs_are_those_used_in_sampling(any_base: BaseModel) -> None:
    policy = policy_of(any_base)
    made = policy.generate(PROMPTS, [0, 1, 2, 0])
    for place in range(3):
        rows = [row for row in range(4) if int(made.lengths[row]) > place]
        table = policy.next_token_log_probs(
            [PROMPTS[row] for row in rows], [made.ids(row)[:place] for row in rows], [[0, 1, 2, 0][row] for row in rows]
        )
        torch.testing.assert_close(table.exp().sum(dim=1), torch.ones(len(rows)))
        for number, row in enumerate(rows):
            expected = float(made.log_probs[row, place])
            assert float(table[number, made.ids(row)[place]]) == pytest.approx(expected, abs=CLOSE)


def test_a_policy_of_one_preference_needs_no_index(llama: BaseModel) -> None:
    policy = policy_of(llama, rows=1)
    assert policy.generate(["a b"]).texts == policy.generate(["a b"], [0]).texts
    assert len(policy) == 1


def test_a_limit_of_new_tokens_is_the_callers(llama: BaseModel) -> None:
    made = policy_of(llama).generate(PROMPTS * 4, [0] * 16, max_new_tokens=2)
    assert made.token_ids.shape[1] == 2


NO_TEXTS: list[tuple[object, str]] = [
    ("dog cat", r"got the text 'dog cat'\. Put it into a list"),
    ("", "got the text ''"),
    (None, "got None"),
    (b"a", "got a bytes"),
    ({"a": 1}, "got a dict"),
    ({"a"}, "got a set"),
    (3, "got an int"),
    ([], "at least one text, got an empty list"),
    (["a", 3], r"prompts\[1\] must be a text, got an int"),
    ([None], r"prompts\[0\] must be a text, got None"),
    (["a", "b", b"c"], r"prompts\[2\] must be a text, got a bytes"),
    ([["a"]], r"prompts\[0\] must be a text, got a list"),
    (["a", "a \ud800"], r"prompts\[1\] must be text .* lone surrogate '\\ud800' at character 2"),
]


@pytest.mark.parametrize(("prompts", "message"), NO_TEXTS)
def test_what_is_no_list_of_texts_is_refused_wherever_texts_are_asked_for(
    llama: BaseModel, prompts: Any, message: str
) -> None:
    policy = policy_of(llama, rows=1)
    for ask in (
        policy.generate, policy.encode, lambda prompts: policy.completion_table(prompts, [1, 2], 1),
        lambda prompts: policy.next_token_log_probs(prompts, [[]]),
    ):  # fmt: skip
        with pytest.raises(ShapeError, match=message):
            ask(prompts)


@pytest.mark.parametrize("prompts", [["a b"], ("a b",), np.array(["a b"]), iter(["a b"])])
def test_any_sequence_of_texts_will_do(llama: BaseModel, prompts: Any) -> None:
    assert policy_of(llama, rows=1).generate(prompts).prompt_ids == ((1, 2, 7),)


@pytest.mark.parametrize("prefixes", ["a", ["a"], [b"a"]])
def test_texts_in_place_of_ids_are_refused(llama: BaseModel, prefixes: Any) -> None:
    with pytest.raises(ShapeError, match="prefixes must be lists of token ids, got the text"):
        policy_of(llama, rows=1).next_token_log_probs(["a"], prefixes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": ["a"]}, "must say which of the 3 preferences answers each prompt"),
        ({"prompts": ["a"], "policy_index": [3]}, r"one entry in 0..2 per prompt \(1\), got \[3\]"),
        ({"prompts": ["a"], "policy_index": [-1]}, r"one entry in 0..2 per prompt \(1\), got \[-1\]"),
        ({"prompts": ["a"], "policy_index": [0, 0]}, r"one entry in 0..2 per prompt \(1\), got \[0, 0\]"),
        ({"prompts": ["a b c d"], "policy_index": [0]}, r"at most 4 tokens, got 5 \('a b c d...'\). Shorten it"),
        ({"prompts": ["a"], "policy_index": [0], "seed": [1, 2]}, r"seed must be one number or one per prompt \(1\)"),
        ({"prompts": ["a"], "policy_index": [0], "temperature": [1.0] * 3}, "temperature must be one number"),
        ({"prompts": ["a"], "policy_index": [0], "temperature": 0.0}, "temperature must be positive"),
        ({"prompts": ["a"], "policy_index": [0], "top_p": math.nan}, r"top_p must be in \(0, 1\]"),
        ({"prompts": ["a"], "policy_index": [0], "samples": 0}, "samples must be at least 1, got 0"),
        ({"prompts": ["a"], "policy_index": [0], "max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
    ],
)
def test_arguments_that_disagree_are_refused(llama: BaseModel, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        policy_of(llama).generate(**arguments)  # type: ignore[arg-type]  # the point of the test


def test_an_empty_prompt_is_refused(llama: BaseModel) -> None:
    with pytest.raises(ShapeError, match="non-empty"):
        policy_of(llama, template="{prompt}").generate([""], [0])


def test_prefixes_for_another_number_of_prompts_are_refused(llama: BaseModel) -> None:
    with pytest.raises(ShapeError, match=r"one per prompt \(1\), got 2"):
        policy_of(llama).next_token_log_probs(["a"], [[], []], [0])


def test_equal_weights_are_one_policy_unless_the_experts_are_mixed_otherwise(llama: BaseModel, tmp_path: Path) -> None:
    gate, other = tmp_path / "gate.safetensors", tmp_path / "other.safetensors"
    gate.write_bytes(b"one")
    other.write_bytes(b"two")

    def identities(mixer: Mixer | None = None) -> list[bytes]:
        made = Policy(llama, None, PromptFormat(), 4, 6, PREFERENCES, ["mine"] * 3, np.full((3, 2), 0.5), mixer)
        return [made.identity(index) for index in range(3)]

    plain = identities()
    assert len(set(plain)) == 1
    assert identities(Mixer()) == plain
    gated = identities(Mixer(gate=gate))
    assert len(set(gated)) == 3  # a gate reads the preference
    soup = Mixer("hidden", 1, continued="soup")
    mixers = [
        Mixer(gate=other), Mixer("hidden", 1), Mixer("hidden", 2), soup, Mixer("log_probs"), Mixer("probabilities"),
        Mixer("log_probs", divergence="forward_kl"), Mixer("hidden", -1), Mixer("hidden", -1, norm="after"),
    ]  # fmt: skip
    found = [plain, gated, *(identities(mixer) for mixer in mixers)]
    assert len({row for rows in found for row in rows}) == 3 + 3 + 1 + 8  # gates tell preferences apart, levels do not
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(b"one")
    assert identities(Mixer(gate=moved)) == gated  # the same gate, wherever it lies


def test_scaled_policies_keep_their_mixer(llama: BaseModel) -> None:
    mixer = Mixer("hidden", 1)
    made = Policy(llama, None, PromptFormat(), 4, 6, PREFERENCES, ["mine"] * 3, np.full((3, 2), 0.5), mixer)
    scaled = made.scaled([0.5, 1.0])
    assert scaled.mixer == mixer
    assert [scaled.identity(1), scaled.identity(3)] == [made.identity(0)] * 2
    assert scaled.identity(0) != scaled.identity(1)
    zero = made.scaled([0.0])
    assert {zero.identity(index) for index in range(3)} == {zero.identity(0)}  # the base model


@pytest.mark.parametrize("mixer", [Mixer(), Mixer("hidden", 1), Mixer(gate=Path("gate.safetensors"))])
def test_nothing_is_said_to_the_base_model_that_scale_zero_leaves(llama: BaseModel, mixer: Mixer) -> None:
    text = PreferenceText(("x", "y"), "{preference} ", "{number}", " ", tuple("a b c d e f g aa bb cc dd".split()))
    half, zero = np.full((3, 2), 0.5), np.zeros((3, 2))
    gate = None if mixer.gate is None else gated.gate_of(gated.bank_of(llama))
    made = Policy(llama, None, PromptFormat(), 9, 6, PREFERENCES, ["mine"] * 3, half, mixer, gate, text)
    scaled = made.scaled([0.0, 0.5])
    assert [made.said(0), scaled.said(0), scaled.said(1)] == ["dd a ", "", "dd a "]
    assert scaled.told(["e"], [0]) == made.encode(["e"])
    # a gate may turn a prior of 0 into weights; without one, weights of 0 are the base model
    made.expert_weights = zero
    assert made.said(0) == ("" if mixer.gate is None else "dd a ")


def test_what_a_mixer_is_made_of_by_default_tells_policies_apart_as_it_always_did() -> None:
    """Records name policies by this: what came later counts only where it is not the default."""
    assert Mixer("log_probs").plain() == {"level": "log_probs", "block": None, "continued": "base"}
    assert Mixer("log_probs", particles=4).plain()["particles"] == 4


def test_a_policy_that_does_not_resample_refuses_particles(llama: BaseModel) -> None:
    with pytest.raises(ConfigError, match=r"a mixer of 4 particles must be served by a policy that resamples, got Pol"):
        Policy(llama, None, PromptFormat(), 4, 6, PREFERENCES, [""] * 3, np.eye(3), Mixer("log_probs", particles=4))


LEVELS = [
    Mixer(), Mixer("log_probs"), Mixer("probabilities"), Mixer("hidden", 0), Mixer("hidden", 1, continued="soup"),
    Mixer(gate=Path("gate.safetensors")),
]  # fmt: skip


def mixed_by(base: BaseModel, mixer: Mixer, weights: Any = ((0.5, 0.2, 0.3),)) -> Policy:
    bank = gated.bank_of(base)
    gate = None if mixer.gate is None else gated.gate_of(bank)
    even = np.full((len(weights), 2), 0.5)
    return Policy(base, bank, PromptFormat(), 4, 6, even, ["mine"] * len(weights), np.asarray(weights), mixer, gate)


def scored(policy: Policy, index: int = 0) -> torch.Tensor:
    return policy.next_token_log_probs(["a b c", "d"], [[1, 2], []], [index, index])


@pytest.mark.parametrize("mixer", LEVELS, ids=lambda mixer: f"{mixer.level}-{mixer.block}-{mixer.gate}")
def test_leaving_an_expert_out_is_as_if_it_had_learned_nothing(llama: BaseModel, mixer: Mixer, tmp_path: Path) -> None:
    """At every level: an expert of zeros adds no delta, and its stream is the base model's."""
    if mixer.gate is not None:
        mixer = Mixer(gate=tmp_path / mixer.gate)
        (tmp_path / "gate.safetensors").write_bytes(b"tells its policies from others")
    policy = mixed_by(llama, mixer)
    kept = policy.keeping([0, 0, 0], [[True, True, True], [True, False, True], [False, False, False]])
    whole, left, none = scored(policy), scored(kept, 1), scored(kept, 2)
    assert torch.equal(scored(kept, 0), whole)
    assert kept.identity(0) == policy.identity(0)
    assert len({kept.identity(index) for index in range(3)}) == 3
    assert policy.bank is not None
    policy.bank.flat[1].zero_()
    torch.testing.assert_close(left, scored(policy), atol=CLOSE, rtol=0)
    assert float((left - whole).abs().max()) > 100 * CLOSE  # it had learned something
    policy.bank.flat.zero_()
    torch.testing.assert_close(none, scored(policy), atol=CLOSE, rtol=0)


def test_of_hidden_states_the_base_model_gets_the_part_of_the_weights_that_is_left_out(llama: BaseModel) -> None:
    kept = mixed_by(llama, Mixer("hidden", 0), [[1.0, 0.6, -0.4]]).keeping([0, 0], [[True, False, False], [False] * 3])
    assert kept.scales.tolist() == [0.5, 0.0]  # 1 of 1 + .6 + .4, and nothing
    np.testing.assert_allclose(kept.expert_weights[0] * kept.scales[0], [1.0, 0.0, 0.0])


def test_experts_that_stay_must_be_said_of_each_policy_and_expert(llama: BaseModel) -> None:
    with pytest.raises(ShapeError, match=r"kept must have one entry per policy and expert \[2, 3\], got \[3\]"):
        mixed_by(llama, Mixer()).keeping([0, 0], [True, True, False])
