from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import micro_task
from gated import bank_of
from paretune.core.errors import ConfigError
from paretune.core.ledger import Ledger
from paretune.core.task import Task
from paretune.methods.experts import REPLAY_VERSION, ExpertSettings, expert_settings, expert_stage, settings_of
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.gate import BlockGate, SmallNetwork
from paretune.models.mixing import Mixing
from paretune.models.prompt_gate import PromptGate
from paretune.models.scoring import completion_log_probs
from paretune.objectives.scoring import Scorer
from paretune.rl.advantages import grpo
from paretune.rl.learner import Learner
from paretune.rl.replay import History
from paretune.rl.rollout import Prompts
from paretune.rl.rollouts import Environment
from paretune.rl.settings import LearnerSettings
from paretune.rl.slots import Slots
from paretune.rl.trainees import Conditioned, Member, Population
from paretune.rl.weighting import Seen

SETTINGS = LearnerSettings(
    1e-2, group_size=2, completions_per_update=8, epochs=2, average_decay=0.0, replay=4, max_grad_norm=1e9
)


BOTH = torch.arange(2)


def make(task: Task, base: BaseModel, settings: LearnerSettings, members: int = 1, weightings: Any = ()) -> Learner:
    chosen = [Member(np.asarray([0.25, 0.75]), seed, (64,), Ledger(64)) for seed in range(members)]
    bank = ExpertBank(base, members, rank=2)
    bank.initialise(range(members))
    bank.flat += 0.1 * torch.randn(bank.flat.shape, generator=torch.Generator().manual_seed(0))
    train, development = (
        Prompts(task.splits[split], [tuple(base.encode(str(row["prompt"]))) for row in task.splits[split]])
        for split in ("train", "development")
    )
    ranges = np.asarray([objective.range for objective in task.objectives])
    environment = Environment(Scorer(task.objectives), train, task.beta, micro_task.LENGTH, ranges, development)
    return Learner(Population(bank, chosen), environment, settings, Slots(weightings=weightings))


def history(learner: Learner, base: BaseModel, log_probs: list[float], rewards: list[list[float]]) -> History:
    """Two completions of the first training prompt, with the log-probabilities that they were sampled with."""
    ids = base.encode("a b")[:2]
    token_ids = torch.tensor([ids, ids[::-1]])
    prompts = [learner.environment.train.prompt_ids[0]] * 2
    with torch.no_grad():
        reference = completion_log_probs(base, None, Mixing.reference(2), prompts, token_ids, torch.tensor([2, 2]))
    return History(
        torch.zeros(2, dtype=torch.int64), token_ids, torch.tensor([2, 2]),
        torch.tensor(log_probs, dtype=torch.float64), reference.sum(dim=1).double(),
        torch.tensor(rewards, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64),
        torch.tensor([[0.25, 0.75]] * 2, dtype=torch.float64), torch.tensor([[0.25, 0.75]] * 2, dtype=torch.float64),
    )  # fmt: skip


def read(learner: Learner, drawn: History) -> torch.Tensor:
    prompts = [learner.environment.train.prompt_ids[0]] * 2
    bank, mixing = learner.trainee.bank, Mixing.population(1, 2)
    return completion_log_probs(bank.base, bank, mixing, prompts, drawn.token_ids, drawn.lengths)


def now_of(learner: Learner, drawn: History) -> torch.Tensor:
    return read(learner, drawn).sum(dim=1)


def test_a_completion_counts_its_truncated_ratio_times_its_advantage_now(task: Task, base: BaseModel) -> None:
    learner = make(task, base, SETTINGS)
    drawn = history(learner, base, [0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
    now = now_of(learner, drawn).detach().double()
    # sampled with half of, and four times, the probability it has now: ratios 2 (held at 2) and .25
    drawn = replace(drawn, log_probs=now - torch.tensor([2.0, 0.25]).log().double())
    chosen = torch.tensor([[0.25, 0.75]])
    loss, said = learner.replay.loss([0], drawn, BOTH, read(learner, drawn), chosen, completions=12)
    loss.backward()
    kl = now - drawn.reference
    worth = torch.tensor([0.25, 0.75]).double() - task.beta * kl  # w . r - beta kl
    baseline = (2 * worth[0] + 0.25 * worth[1]) / 2.25
    expected = torch.stack([2 * (worth[0] - baseline), 0.25 * (worth[1] - baseline)])
    torch.testing.assert_close(said, expected.abs(), rtol=1e-5, atol=1e-7)
    made = learner.trainee.take_gradients([0])["experts"]
    loss = -(expected.float() * now_of(learner, drawn)).sum() / 12
    loss.backward()
    torch.testing.assert_close(made, learner.trainee.take_gradients([0])["experts"], rtol=1e-4, atol=1e-7)


def test_advantages_vanish_at_the_optimum_whoever_sampled(task: Task, base: BaseModel) -> None:
    # at the optimum beta log(pi / pi_ref) = w . r - const for all completions of a prompt
    learner = make(task, base, SETTINGS)
    drawn = history(learner, base, [-3.0, -0.5], [[0.0, 0.0], [0.0, 0.0]])
    kl = now_of(learner, drawn).detach().double() - drawn.reference
    rewards = (task.beta * kl + 0.3)[:, None].expand(2, 2).contiguous()
    worth_alike, chosen = replace(drawn, rewards=rewards), torch.tensor([[0.25, 0.75]])
    loss, said = learner.replay.loss([0], worth_alike, BOTH, read(learner, drawn), chosen, 12)
    loss.backward()
    assert said.max() < 1e-6
    assert learner.trainee.take_gradients([0])["experts"].abs().max() < 1e-6


def test_the_first_update_has_nothing_to_learn_again_and_later_ones_draw_whole_groups(
    task: Task, base: BaseModel
) -> None:
    learner = make(task, base, SETTINGS, members=2)
    assert learner.replay.draw([0, 1], [0, 0], 0) is None
    learner.update(lambda index, length: None, lambda event: None)
    assert [len(each) for each in learner.replay.histories] == [8, 8]
    drawn = learner.replay.draw([0, 1], [1, 1], 0)
    assert drawn is not None
    assert len(drawn) == 2 * SETTINGS.replay
    for one, other in drawn.prompts.view(-1, 2).tolist():
        assert one == other
    alone = learner.replay.draw([1], [1, 1], 0)
    assert alone is not None
    assert alone.token_ids.equal(drawn.token_ids[4:])  # it depends on nobody else
    again = learner.replay.draw([0, 1], [1, 1], 1)
    assert again is not None
    assert not again.log_probs.equal(drawn.log_probs)  # each epoch draws anew


def conditioned(task: Task, base: BaseModel, feedback: str = "told") -> Learner:
    """One policy for all preferences, with some updates behind it."""
    one = make(task, base, SETTINGS)
    one.trainee.bank.unwrap()
    bank = ExpertBank(base, 2, rank=2)
    bank.initialise([0, 0])
    half: Any = lambda rows, told: np.full((len(told), len(rows), 2), 0.5)  # noqa: E731
    wanted = None if feedback == "told" else half
    environment = replace(one.environment, feedback=feedback, prompt_preferences=wanted)
    learner = Learner(Conditioned(bank, None, np.eye(2), 3, (64,), Ledger(64)), environment, SETTINGS)
    for _ in range(4):
        learner.update(lambda index, length: None, lambda event: None)
    return learner


def identities(history: History) -> list[tuple[int, float, float]]:
    return list(zip(history.prompts.tolist(), history.log_probs.tolist(), history.rewards[:, 0].tolist(), strict=True))


def test_a_group_is_of_one_prompt_and_of_completions_that_were_made_for_any_preference(
    task: Task, base: BaseModel
) -> None:
    learner = conditioned(task, base)
    known, mixed = learner.replay.histories[0], 0
    made = dict(zip(identities(known), known.preferences.tolist(), strict=True))
    for epoch in range(20):
        drawn = learner.replay.draw([0], [4], epoch)
        assert drawn is not None
        for rows in torch.arange(len(drawn)).split(SETTINGS.group_size):
            group = drawn.take(rows)
            assert len(set(group.prompts.tolist())) == 1
            assert len(set(identities(group))) == len(rows)  # none twice
            mixed += len({tuple(made[each]) for each in identities(group)}) > 1
            asked = group.preferences
            assert asked.equal(asked[:1].expand_as(asked))  # one for the whole group
            assert asked.equal(group.weights)
            assert asked[0].tolist() not in known.preferences.tolist()  # a new one
    assert mixed > 0


def test_where_a_completion_has_one_number_groups_stay_as_they_were_sampled(task: Task, base: BaseModel) -> None:
    learner = conditioned(task, base, "utility")
    known = learner.replay.histories[0]
    made = dict(zip(identities(known), known.preferences.tolist(), strict=True))
    for epoch in range(5):
        drawn = learner.replay.draw([0], [4], epoch)
        assert drawn is not None
        assert [made[each] for each in identities(drawn)] == drawn.preferences.tolist()
        assert drawn.weights.unique().tolist() == [0.5]  # what its user wanted of the prompt


def test_a_prompt_comes_again_as_often_as_it_was_sampled_for(task: Task, base: BaseModel) -> None:
    learner = make(task, base, replace(SETTINGS, replay=40))
    learner.update(lambda index, length: None, lambda event: None)
    own = learner.replay.histories[0]
    # six of eight completions of one prompt, two of another
    own = replace(own, prompts=torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]))
    learner.replay.histories[0] = own
    draws = [learner.replay.draw([0], [1], epoch) for epoch in range(50)]
    first = torch.cat([drawn.prompts for drawn in draws if drawn is not None])
    share = float((first == 0).float().mean())
    assert share == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 1000) ** 0.5)  # of 1,000 groups, four deviations


def test_a_window_forgets_the_oldest(task: Task, base: BaseModel) -> None:
    learner = make(task, base, replace(SETTINGS, replay_window=12))
    for _ in range(3):
        learner.update(lambda index, length: None, lambda event: None)
        kept = learner.replay.histories[0]
    assert len(kept) == 12
    assert len(kept.followed_by(kept, 0)) == 24  # all, without a window
    older, newer = replace(kept, rewards=kept.rewards + 1), replace(kept, rewards=kept.rewards + 2)
    assert older.followed_by(newer, 12).rewards.equal(newer.rewards)
    assert older.followed_by(newer, 16).rewards.equal(torch.cat([older.rewards[-4:], newer.rewards]))


class Turned:
    """Always the other way round than the preference says."""

    needs: frozenset[str] = frozenset()

    def measured(self, update: int) -> int:
        return 0

    def weigh(self, seen: Seen) -> Any:
        return seen.preference[::-1].copy()

    def state(self) -> dict[str, object]:
        return {}

    def load(self, state: Mapping[str, object]) -> None: ...


def test_what_a_weighting_chooses_weighs_earlier_completions_too(task: Task, base: BaseModel) -> None:
    learner = make(task, base, SETTINGS, weightings=[Turned()])
    drawn = history(learner, base, [0.0, 0.0], [[1.0, 0.0], [0.0, 0.5]])
    now = now_of(learner, drawn).detach().double()
    drawn = replace(drawn, log_probs=now, reference=now)  # ratios 1, no KL
    _, said = learner.replay.loss([0], drawn, BOTH, read(learner, drawn), torch.tensor([[0.75, 0.25]]), 12)
    assert said.tolist() == pytest.approx([0.3125, 0.3125])  # .75 against .125, each from their mean


class FromGradients(Turned):
    needs = frozenset({"gram"})


def test_advantages_of_a_method_are_refused(task: Task, base: BaseModel) -> None:
    made = make(task, base, replace(SETTINGS, replay=0))
    slots = Slots(advantages=grpo)
    Learner(made.trainee, made.environment, made.settings, slots)
    with pytest.raises(ConfigError, match=r"replay must be 0 with advantages paretune\.rl\.advantages:grpo, got 4: "):
        Learner(made.trainee, made.environment, SETTINGS, slots)


def test_weights_from_gradients_are_refused(task: Task, base: BaseModel) -> None:
    with pytest.raises(ConfigError, match="replay must be 0 where objective weights are chosen from gradients, got 4"):
        make(task, base, SETTINGS, weightings=[FromGradients()])


def test_what_is_learned_again_is_charged_in_flops_alone(task: Task, base: BaseModel) -> None:
    with_replay, without = (make(task, base, replace(SETTINGS, replay=replay)) for replay in (4, 0))
    for learner in (with_replay, without):
        learner.update(lambda index, length: None, lambda event: None)
    coming = [with_replay.replay.draw([0], [1], epoch) for epoch in range(2)]
    for learner in (with_replay, without):
        learner.update(lambda index, length: None, lambda event: None)
    one, other = (learner.members[0].ledger.counts for learner in (with_replay, without))
    assert {name for name in one if one[name] != other[name]} == {"flops"}
    # two epochs, each there and back (3 passes) over 4 completions and the prompts of 2 groups
    bank, ids = with_replay.trainee.bank, with_replay.environment.train.prompt_ids
    tokens = sum(
        int(drawn.lengths.sum()) + sum(len(ids[place]) for place in drawn.prompts[::2].tolist())
        for drawn in coming
        if drawn is not None
    )
    passes = 2 * (bank.base.parameters + bank.parameters_each()) * tokens * 3
    assert one["flops"] - other["flops"] == pytest.approx(passes)


def test_without_replay_a_stage_is_what_it_was() -> None:
    stage = expert_stage(ExpertSettings(), np.asarray([1.0, 0.0]), 64, 0)
    assert "replay" not in stage.settings
    assert "replay_window" not in stage.settings
    assert "replay_version" not in stage.settings
    assert settings_of(ExpertSettings, stage) == ExpertSettings()
    own = ExpertSettings(replay=64)
    assert expert_settings(own)["replay"] == 64
    assert expert_settings(own)["replay_version"] == REPLAY_VERSION  # another key than before groups were mixed
    assert settings_of(ExpertSettings, expert_stage(own, np.asarray([1.0, 0.0]), 64, 0)) == own


def gradient(task: Task, base: BaseModel, micro: int) -> torch.Tensor:
    """Return where a step with earlier completions takes two members, read at most `micro` of each at once."""
    learner = make(task, base, replace(SETTINGS, completions_per_update=4, micro_batch=micro), members=2)
    for _ in range(2):
        learner.update(lambda index, length: None, lambda event: None)
    return learner.trainee.bank.flat.detach().clone()


def test_it_does_not_matter_how_much_is_read_at_once(task: Task, base: BaseModel) -> None:
    once = gradient(task, base, 0)
    for micro in (2, 4):
        torch.testing.assert_close(gradient(task, base, micro), once, rtol=1e-4, atol=1e-6)  # fp32, another order


def test_earlier_completions_stand_beside_those_of_the_update(task: Task, base: BaseModel) -> None:
    learner = make(task, base, replace(SETTINGS, completions_per_update=4), members=2)
    learner.update(lambda index, length: None, lambda event: None)
    drawn = learner.replay.draw([0, 1], [1, 1], 0)
    assert drawn is not None
    asked, _, _, batch = learner.rollouts.sample([0, 1], 4)
    step = learner.replay.beside([0, 1], batch, asked, drawn)
    (part,) = step.passes()
    width, ids = batch.token_ids.shape[1], learner.environment.train.prompt_ids
    assert part.token_ids[part.own_at][:, :width].equal(batch.token_ids)
    assert part.lengths[part.again_at].equal(drawn.lengths)
    assert [part.prompt_ids[row] for row in part.again_at.tolist()] == [ids[each] for each in drawn.prompts.tolist()]
    assert np.array_equal(asked, np.tile([0.25, 0.75], (8, 1)))


@pytest.mark.parametrize("epoch", [0, 1])
def test_completions_of_an_update_count_as_much_as_each_earlier_one(
    task: Task, base: BaseModel, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradients(replay: int) -> torch.Tensor:
        """Return the gradient of the update alone in an epoch; earlier completions say nothing."""
        learner = make(task, base, replace(SETTINGS, learning_rate=1e-9, replay=replay))
        learner.update(lambda index, length: None, lambda event: None)
        taken, take = [], learner.trainee.take_gradients
        monkeypatch.setattr(
            learner.replay, "loss", lambda *a: (a[3].sum() * 0, torch.zeros(len(a[2]), dtype=torch.float64))
        )
        monkeypatch.setattr(learner.trainee, "take_gradients", lambda members: taken.append(take(members)) or taken[-1])
        learner.update(lambda index, length: None, lambda event: None)
        return taken[epoch]["experts"]

    alone, beside = gradients(0), gradients(16)
    assert alone.abs().max() > 0
    # 8 of its own beside 16 earlier ones: a third each as much
    torch.testing.assert_close(beside, alone / 3, rtol=1e-3, atol=1e-7)


def test_rewards_that_differ_by_rounding_alone_teach_nothing(task: Task, base: BaseModel) -> None:
    learner, chosen = make(task, base, SETTINGS), torch.tensor([[0.25, 0.75]])
    for apart, least in ((1e-13, 0.0), (0.1, 0.01)):
        drawn = history(learner, base, [0.0, 0.0], [[0.5, 0.25], [0.5 + apart, 0.25]])
        now = now_of(learner, drawn).detach().double()
        drawn = replace(drawn, log_probs=now, reference=now)  # ratios 1, no KL
        _, said = learner.replay.loss([0], drawn, BOTH, read(learner, drawn), chosen, 12)
        assert said.tolist() == pytest.approx([0.0, 0.0], abs=0) if least == 0 else said.min() > least


def test_what_stands_in_front_of_a_prompt_is_read_and_charged_again(task: Task, base: BaseModel) -> None:
    learner = make(task, base, SETTINGS)
    learner.update(lambda index, length: None, lambda event: None)
    train = learner.environment.train
    learner.replay.train = replace(train, told=lambda place, preference: (0, 0, *train.prompt_ids[place]))
    drawn = learner.replay.draw([0], [1], 0)
    assert drawn is not None
    asked, _, _, batch = learner.rollouts.sample([0], 8)
    step = learner.replay.beside([0], batch, asked, drawn)
    told = [(0, 0, *train.prompt_ids[place]) for place in drawn.prompts.tolist()]
    assert list(step.prompt_ids[8:]) == told
    before = learner.members[0].ledger.counts["flops"]
    learner.replay.charge([0], step)
    tokens = int(drawn.lengths.sum()) + sum(len(ids) for ids in told[::2])  # each prompt once for its group
    bank = learner.trainee.bank
    expected = 2 * (bank.base.parameters + bank.parameters_each()) * tokens * 3  # there and back
    assert learner.members[0].ledger.counts["flops"] - before == pytest.approx(expected)


@pytest.mark.parametrize("trains", ["both", "gate"])
@pytest.mark.parametrize("kind", [BlockGate, PromptGate])
def test_reading_again_is_charged_all_that_reads_trained_or_not(
    task: Task, base: BaseModel, kind: type[SmallNetwork], trains: str
) -> None:
    environment = make(task, base, SETTINGS).environment
    bank = bank_of(base, 2)
    gate = kind(bank, 2, 0, {"width": 5})
    learner = Learner(Conditioned(bank, gate, np.eye(2), 0, (64,), Ledger(64), trains=trains), environment, SETTINGS)
    learner.update(lambda index, length: None, lambda event: None)
    drawn = learner.replay.draw([0], [1], 0)
    assert drawn is not None
    asked, _, _, batch = learner.rollouts.sample([0], 8)
    before = learner.members[0].ledger.counts["flops"]
    learner.replay.charge([0], learner.replay.beside([0], batch, asked, drawn))
    # two groups of two: completions and, once for each group, prompts, there and back
    prompts = sum(len(environment.train.prompt_ids[place]) for place in drawn.prompts[::2].tolist())
    by_token = gate.flat.numel() if kind is BlockGate else 0
    passes = (base.parameters + 2 * bank.parameters_each() + by_token) * (int(drawn.lengths.sum()) + prompts) * 3
    if kind is PromptGate:  # the base model alone reads each prompt for it
        passes += base.parameters * prompts
    assert learner.members[0].ledger.counts["flops"] - before == 2 * passes
