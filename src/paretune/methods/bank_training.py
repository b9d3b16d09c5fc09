"""What the stage of a bank starts from, and what it trains: new experts or those of other stages, and a gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.core.answers import Answer, Combined
from paretune.core.errors import AdapterError, ConfigError
from paretune.core.stages import GATE, Stage, StageContext
from paretune.core.task import Task
from paretune.methods.banks import GateSettings, StartSettings
from paretune.methods.experts import ExpertSettings, adapters_of, settings_of
from paretune.methods.priors import make_prior
from paretune.methods.training import Run, prompts, resolve_named, train, trajectories

if TYPE_CHECKING:
    from paretune.models.bank import ExpertBank
    from paretune.models.base import BaseModel
    from paretune.models.gate import TrainedGate

CONTEXT_PROMPTS = 64  # training prompts, the first ones, whose states a shuffled gate is given; its file names them


def train_bank(context: StageContext) -> None:
    """Train experts, and a gate where the stage names one, as one policy on preferences drawn by prompt.

    It starts with new experts or with those that its stages need, and leaves what it trains: an adapter for each
    expert, `experts/000` and so on, and `gate.safetensors`; where the gate learns alone, that alone.
    """
    from paretune.models.adapters import save_adapter
    from paretune.models.loading import load_base, unwrap
    from paretune.rl.gate_terms import GateTerms
    from paretune.rl.trainees import Conditioned

    task = context.task
    base, objectives = load_base(task.model), len(task.objectives)
    gating, started = settings_of(GateSettings, context.stages[0]), start_of_bank(context.stages[0])
    prior = prior_of_bank(context, context.stages[0], objectives)
    for stages in trajectories(context):
        seed, lengths = stages[0].seed, tuple(stage.completions for stage in stages)
        try:
            bank = _bank(context, stages[0], base, prior.experts)
            gate = _gate(context, stages[0], bank, objectives, gating.gate)
            rate, ledger = gating.gate_learning_rate or None, context.ledger(stages[-1])
            # a gate that stays as it is has no terms of its own
            terms = None if started.trains == "experts" else GateTerms.of(stages[0].settings)
            only: Any = stages[0].member.get("objective_weights")
            trainee = Conditioned(
                bank, gate, prior, seed, lengths, ledger, rate, started.trains, terms, started.draw,
                None if only is None else np.asarray(only, dtype=np.float64),
            )  # fmt: skip

            def save(
                stage: Stage, bank: ExpertBank = bank, gate: TrainedGate | None = gate
            ) -> None:  # fmt: skip
                for expert in range(0 if started.trains == "gate" else bank.experts):
                    save_adapter(bank, expert, context.artefact(stage, f"experts/{expert:03d}"))
                if gate is not None:
                    gate.save(context.artefact(stage, GATE))

            if gate is not None and gate.prompt_passes:
                _read_all_prompts(gate, base, task)
            train(context, trainee, [Run(stages, save)], name=stages[0].trajectory_key(task))
        finally:
            unwrap(base)


def start_of_bank(stage: Stage) -> StartSettings:
    """Return where the bank of a stage starts."""
    given: dict[str, Any] = {
        each.name: stage.settings[each.name] for each in fields(StartSettings) if each.name in stage.settings
    }
    return StartSettings(**given)


def prior_of_bank(context: StageContext, stage: Stage, objectives: int) -> Answer:
    """Return what weighs the experts of a stage's bank for a preference alone."""
    started = start_of_bank(stage)
    rule = np.eye(objectives) if started.prior is None else np.asarray(started.prior, dtype=np.float64)
    if started.prior_from is None:
        return Combined(rule)
    return make_prior(started.prior_from).answer(context.task, rule, [context.result(need) for need in stage.needs])


def _bank(context: StageContext, stage: Stage, base: BaseModel, experts: int) -> ExpertBank:
    """Return the bank that a stage starts with: the experts it needs, or new ones, of a random A each or of one."""
    from paretune.core.seeds import stream_key
    from paretune.models.adapters import load_bank
    from paretune.models.bank import ExpertBank

    results = (context.result(need) for need in stage.needs)
    adapters = adapters_of(each for each in results if each.adapters)
    if stage.needs and (adapters or start_of_bank(stage).prior_from is None):
        if len(adapters) != experts:
            raise AdapterError(
                f"experts to start from must be as many as the prior weighs, {experts}, got {len(adapters)}. Give a "
                "prior [K, E] for them."
            )
        return load_bank(base, adapters)
    shape = settings_of(ExpertSettings, stage)
    bank = ExpertBank(base, experts, shape.rank, shape.alpha)
    own = start_of_bank(stage).start == "independent"
    bank.initialise([stream_key(stage.seed, "expert", expert if own else 0) for expert in range(experts)])
    return bank


def _gate(
    context: StageContext, stage: Stage, bank: ExpertBank, objectives: int, name: str
) -> TrainedGate | None:  # fmt: skip
    """Return the gate that a stage starts with: the one of the last stage it needs that left one, or a new one."""
    from paretune.models.gate import load_gate

    if not name:
        return None
    kind = resolve_named("gate", name)
    results = [context.result(need) for need in stage.needs]
    left = [each.artefacts[GATE] for each in results if GATE in each.artefacts]
    if left:
        gate = load_gate(bank, left[-1])
        if type(gate) is not kind:
            raise ConfigError(
                f"gate must be '{name}', as the stage says, got one of {type(gate).__name__} to start from. Name the "
                "gate that was trained, or start from experts alone."
            )
        return gate
    settings = dict(stage.settings)
    if settings.get("context") == "shuffled":
        settings["context_prompts"] = context_prompts(prompts(bank.base, context.task, "train").prompt_ids)
    made: TrainedGate = kind(bank, objectives, stage.seed, settings)
    return made


def _read_all_prompts(gate: TrainedGate, base: BaseModel, task: Task) -> None:
    """Let a gate read all prompts of training now, in their order: states do not depend on when training resumed.

    They depend on the batch: with two threads on a CPU, those of one prompt in thirty change in their last bit.
    """
    for split in ("train", "development"):
        ids: Sequence[tuple[int, ...]] = prompts(base, task, split).prompt_ids
        if ids:
            gate.context_of(ids)


def context_prompts(prompt_ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the training prompts whose states a shuffled gate is given, as plain data for its settings.

    Args:
        prompt_ids: Token ids of all training prompts, in their order.
    """
    return [list(prompt) for prompt in dict.fromkeys(map(tuple, prompt_ids))][:CONTEXT_PROMPTS]
