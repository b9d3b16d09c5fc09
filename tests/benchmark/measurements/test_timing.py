from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import micro_task
from paretune.benchmark.measurements import timing
from paretune.benchmark.measurements.timing import Served, Timing, clock_of, in_rounds, threads_of
from paretune.core.errors import StopRequested
from paretune.core.prompt_format import PromptFormat
from paretune.core.protocols import Mixer
from paretune.core.seeds import generator
from paretune.executors.jobs import Link, quiet_link
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.loading import load_base, unwrap
from paretune.models.policy import Policy
from paretune.models.resampled import ResampledPolicy
from paretune.rl.evaluation import reference_policy

LIMIT = 2


class Machine:
    """Decoders that take as long as they are told, on clocks of their own.

    Attributes:
        seconds: Of a whole answer, from decoder, rows and the number of the round.
        waited: Seconds on the wall that pass beside each second of the clock.
    """

    def __init__(self, seconds: Callable[[str, int, int], float], waited: float = 0.0) -> None:
        self.seconds, self.waited = seconds, waited
        self.now = 0.0
        self.calls: list[tuple[str, int, int, bool]] = []

    def ready(self, decoder: str, rows: int, number: int, first: bool) -> Callable[[], object]:
        self.now += 100.0  # what is made ready is not timed

        def answer() -> object:
            self.calls.append((decoder, rows, number, first))
            self.now += self.seconds(decoder, rows, number) / (10 if first else 1)
            return torch.ones(250 * rows)

        return answer

    def timed(self, *sizes: int) -> tuple[dict[int, timing.Batch], float]:
        batches, busy = in_rounds(
            self.ready, lambda rows: ("base", "policy", "mixed")[: 1 + min(rows, 2)], lambda: self.now,
            generator("test"), sizes, lambda: self.now * (1 + self.waited),
        )  # fmt: skip
        return {batch.rows: batch for batch in batches}, busy


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SECONDS", 1e9)


def test_each_decoder_answers_once_a_round_and_equal_times_end_after_six() -> None:
    machine = Machine(lambda decoder, rows, number: {"base": 1.0, "policy": 2.0, "mixed": 4.0}[decoder])
    found, _ = machine.timed(2)
    assert (found[2].ended, len(found[2].latency["base"])) == ("narrow", 6)
    assert found[2].latency == {"base": [1.0] * 6, "policy": [2.0] * 6, "mixed": [4.0] * 6}
    assert found[2].first["policy"] == pytest.approx([0.2] * 6)
    assert [*found[2].first] == ["base", "policy"]
    counted = machine.calls[6:]  # a first call of each, and one in which memory is counted
    answers = [("base", True), ("base", False), ("policy", True), ("policy", False), ("mixed", False)]
    rounds = [counted[start : start + 5] for start in range(0, len(counted), 5)]
    assert len(rounds) == 6
    for number, calls in enumerate(rounds):
        assert sorted((name, first) for name, _, _, first in calls) == sorted(answers)
        assert {at for _, _, at, _ in calls} == {number}
    assert len({tuple(name for name, *_ in calls) for calls in rounds}) > 1  # in an order drawn anew


def test_rounds_go_on_where_a_ratio_varies_and_there_alone() -> None:
    def seconds(decoder: str, rows: int, number: int) -> float:
        varies = rows == 2 and decoder == "mixed"
        return 1.0 + 0.5 * (number % 2) * varies

    found, _ = Machine(seconds).timed(1, 2)
    assert [(batch.ended, len(batch.latency["base"])) for batch in found.values()] == [("narrow", 6), ("rounds", 20)]


def test_rounds_end_once_the_interval_is_narrow() -> None:
    # ratios of the first three rounds are off: from 12 rounds on the ends are the third values from below and above,
    # from 15 on the fourth ones, and the three no longer count
    found, _ = Machine(lambda decoder, rows, number: 2.0 if decoder == "policy" and number < 3 else 1.0).timed(1)
    assert (found[1].ended, len(found[1].latency["base"])) == ("narrow", 15)


@pytest.mark.parametrize(("share", "ended"), [(0.024, "narrow"), (0.026, "rounds")])
def test_half_an_interval_of_a_fortieth_is_narrow(share: float, ended: str) -> None:
    # half the rounds below and half above 1: in every interval both stand at its ends
    def seconds(decoder: str, rows: int, number: int) -> float:
        return 1.0 + share * (-1) ** number if decoder == "base" else 1.0

    found, _ = Machine(seconds).timed(1)
    assert found[1].ended == ended


def test_seconds_end_what_is_not_narrow_after_six_rounds_at_the_earliest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SECONDS", 1.0)  # spent by the first call
    found, _ = Machine(lambda decoder, rows, number: 1.0 + number * (decoder == "policy")).timed(1, 2)
    assert [(batch.ended, len(batch.latency["base"])) for batch in found.values()] == [("seconds", 6)] * 2


def test_memory_of_base_and_policy_is_counted_for_each_number_of_rows() -> None:
    found, _ = Machine(lambda decoder, rows, number: 1.0).timed(1, 2)
    assert found[1].peak_bytes == {"base": 1000, "policy": 1000}
    assert found[2].peak_bytes == {"base": 2000, "policy": 2000}


@pytest.mark.parametrize(("waited", "busy"), [(0.0, 0.0), (1.0, 0.5), (3.0, 0.75), (-0.5, 0.0)])
def test_busy_is_the_share_of_time_in_which_the_clock_stood_still(waited: float, busy: float) -> None:
    assert Machine(lambda decoder, rows, number: 1.0, waited).timed(1)[1] == pytest.approx(busy)


def test_a_processor_is_timed_by_the_seconds_of_one_thread() -> None:
    before = torch.get_num_threads()
    kind, clock = clock_of(torch.device("cpu"))
    torch.set_num_threads(2)
    try:
        with threads_of(torch.device("cpu")):
            assert torch.get_num_threads() == 1
            start = clock()
            time.sleep(0.2)
            assert clock() - start < 0.1  # sleeping is no work
        assert torch.get_num_threads() == 2
        with threads_of(torch.device("cuda")):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert kind == "cpu"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseModel]:
    made = load_base(str(micro_task.save_model(tmp_path_factory.mktemp("timed") / "model")), device="cpu")
    yield made
    unwrap(made)


def policy_of(
    base: BaseModel, bank: ExpertBank | None, weights: Any, kind: type[Policy] = Policy, **how: Any
) -> Policy:
    given = np.array(weights)
    return kind(base, bank, PromptFormat("{prompt}"), 4, LIMIT, given, ["combined"] * len(given), given, **how)


def served(base: BaseModel, weights: Any, kind: type[Policy] = Policy, **how: Any) -> Served:
    bank = micro_task.perturb(ExpertBank(base, 2, rank=2))
    reference = policy_of(base, None, np.zeros((1, 0)))
    return Served(reference, policy_of(base, bank, weights, kind, **how), ["a", "b", "c"], 0)


def test_replies_run_to_the_limit_or_stop_at_the_first_token(base: BaseModel) -> None:
    asked = served(base, [[0.5, 0.5], [1.0, 0.0]])
    asked.prompts = [f"{first} {second}" for first in "abcdefg" for second in "abcdefg"]
    by_themselves = asked.policy.generate(asked.prompts, [0] * 49, seed=asked.seed).lengths.sum()
    assert by_themselves < 49 * LIMIT == asked.ready("policy", 49, 0, first=False)()  # some would end before
    for decoder in ("base", "policy"):
        assert asked.ready(decoder, 5, 0, first=False)() == 5 * LIMIT
        assert asked.ready(decoder, 5, 0, first=True)() == 5


def test_a_policy_that_draws_one_of_several_completions_shows_no_token_before(base: BaseModel) -> None:
    asked = served(base, [[0.5, 0.5], [1.0, 0.0]], ResampledPolicy, mixer=Mixer("log_probs", particles=3))
    assert asked.ready("policy", 2, 0, first=True)() == 2 * LIMIT
    assert asked.ready("base", 2, 0, first=True)() == 2


def test_the_base_model_is_timed_without_a_wrapped_layer(base: BaseModel) -> None:
    asked = served(base, [[0.5, 0.5], [1.0, 0.0]])
    asked.ready("base", 1, 0, first=True)
    assert getattr(base.model, "_paretune_bank", None) is None
    asked.ready("policy", 1, 0, first=True)
    assert base.model._paretune_bank is asked.policy.bank  # put back before the clock starts


def test_rows_of_a_mixed_batch_have_one_preference_after_another_and_never_the_timed_one(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = served(base, [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0], [0.2, 0.8]])
    seen: list[tuple[list[str], list[int]]] = []

    def generate(prompts: list[str], index: list[int], **how: Any) -> Any:
        seen.append((prompts, index))
        return SimpleNamespace(lengths=torch.ones(len(prompts)))

    monkeypatch.setattr(asked.policy, "generate", generate)
    asked.ready("mixed", 5, 0, first=False)()
    asked.ready("policy", 5, 0, first=False)()
    asked.ready("policy", 5, 1, first=False)()
    assert [index for _, index in seen] == [[1, 2, 3, 1, 2], [0] * 5, [0] * 5]
    prompts = [each for each, _ in seen]
    assert prompts[0] == prompts[1] == [*asked.prompts, *asked.prompts[:2]]  # of one round: the same ones
    assert prompts[2] == [asked.prompts[2], *asked.prompts, asked.prompts[0]]  # of the next: those that follow


def test_one_row_and_one_preference_cannot_be_mixed(base: BaseModel) -> None:
    several = served(base, [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]])
    assert several.decoders(1) == ("base", "policy")
    assert several.decoders(2) == ("base", "policy", "mixed")
    assert served(base, [[0.5, 0.5], [1.0, 0.0]]).decoders(2) == ("base", "policy")


def test_a_gate_that_reads_prompts_reads_them_in_every_timed_repeat(base: BaseModel, tmp_path: Path) -> None:
    from paretune.models.prompt_gate import PromptGate

    bank = ExpertBank(base, 2, rank=2)
    gate = PromptGate(bank, 2, 0)
    policy = policy_of(base, bank, [[0.5, 0.5]], mixer=Mixer(gate=tmp_path / "gate.safetensors"), gate=gate)
    asked = Served(policy_of(base, None, np.zeros((1, 0))), policy, ["a", "b", "c"], 0)
    passes: list[int] = []
    hook = base.model.base_model.register_forward_pre_hook(lambda module, given: passes.append(1))
    counts = []
    for _ in range(3):
        passes.clear()
        assert asked.ready("policy", 3, 0, first=False)() == 3 * LIMIT
        counts.append(len(passes))
    hook.remove()
    # prompts of one token are read by the base model in one pass, then under the experts; then a pass a token
    assert counts == [counts[0]] * 3
    assert counts[0] == 1 + LIMIT


class Job:
    """As much of a job as timing asks for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.task, self.seed = folder, micro_task.load(folder / "task"), 0
        self.preferences = np.array([[1.0, 0.0], [0.0, 1.0]])
        self.cell = {"method": "soups"}
        base = load_base(self.task.model)
        self.bank = micro_task.perturb(ExpertBank(base, 2, rank=2))
        self.solutions = SimpleNamespace(policies_for=self._policies)

    def _policies(self, preferences: Any) -> Policy:
        weights = np.asarray(preferences)
        reference = reference_policy(self.bank.base, self.task)
        return Policy(
            reference.base, self.bank, self.task.prompt_format, self.task.max_prompt_tokens,
            self.task.max_completion_tokens, weights, ["combined"] * len(weights), weights,
        )  # fmt: skip


def test_what_is_written_can_be_read_and_says_how_it_was_timed(tmp_path: Path) -> None:
    from paretune.records.reading import _timing

    job: Any = Job(tmp_path)
    threads = torch.get_num_threads()
    Timing().run(job, quiet_link())
    record = _timing(tmp_path / "timing.json")
    assert (record.task, record.method) == (job.task.name, "soups")
    assert [batch.rows for batch in record.batches] == [*timing.SIZES]
    assert all(batch.new_tokens == LIMIT for batch in record.batches)
    assert all(6 <= len(seconds) <= 20 for batch in record.batches for seconds in batch.latency_seconds.values())
    assert min(min(each) for batch in record.batches for each in batch.latency_seconds.values()) > 0
    small, large = record.batches[0], record.batches[-1]
    assert np.median(large.latency_seconds["policy"]) > np.median(small.latency_seconds["policy"])
    assert np.median(small.first_token_seconds["base"]) < np.median(small.latency_seconds["base"])
    assert large.peak_bytes["policy"] > large.peak_bytes["base"] > small.peak_bytes["base"]
    assert record.rows == timing.SIZES[-1]
    assert len(record.tokens_per_second) == len(record.base_tokens_per_second)
    if torch.cuda.is_available():
        assert (record.clock, record.busy) == ("wall", None)
    else:
        assert (record.clock, record.threads, record.device) == ("cpu", 1, "cpu")
        assert 0 <= record.busy < 1
    assert torch.get_num_threads() == threads
    assert json.loads((tmp_path / "timing.json").read_text())["batches"][0]["ended"] in ("narrow", "rounds", "seconds")
    unwrap(job.bank.base)


def test_a_run_that_is_to_stop_stops_before_the_next_batch(tmp_path: Path) -> None:
    job: Any = Job(tmp_path)
    with pytest.raises(StopRequested):
        Timing().run(job, Link(lambda message: None, lambda: True, 1))
    assert not (tmp_path / "timing.json").exists()
    unwrap(job.bank.base)
