"""The stage that methods with one policy share: a bank of experts and a gate, trained on all preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.model_config import check_gate_block_of
from paretune.core.preferences import FloatArray
from paretune.core.settings import check_read, check_unread
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.experts import LATER, PLANNING, ExpertSettings, expert_settings, weighed
from paretune.methods.feedback import FeedbackSettings
from paretune.rl.preference_draws import DRAWS, UNIFORM, check_draw
from paretune.rl.settings import TRAINS

BANK = "paretune.methods.bank_training:train_bank"  # leaves experts, and the gate that weighs them
GATES = {  # words for `gate`, and what they stand for in a stage
    "block": "paretune.models.gate:BlockGate",
    "token": "paretune.models.token_gate:TokenGate",
    "prompt": "paretune.models.prompt_gate:PromptGate",
    "none": "",
}
CONTEXTS, FORMS = ("own", "blind", "shuffled"), ("free", "softmax")
SHUFFLED_VERSION = 2  # of what a gate of shuffled context reads; raised when that changes
STARTS = ("independent", "shared")


@dataclass(frozen=True)
class BankSettings(FeedbackSettings):
    """How a bank is shaped and trained: one expert per objective, on preferences drawn for each prompt."""

    epochs: int = 2  # of the longer training of one policy for all; four go astray on text, docs/results/learner.md


@dataclass(frozen=True)
class DrawnBankSettings(BankSettings):
    """Settings of a bank that `bank_stage` trains: how the preferences are drawn that it is trained for, too."""

    # of each prompt: uniform; stratified, evenly over an update; corners, every other one; rl/preference_draws.py
    draw: str = field(default=UNIFORM, metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("draw", self.draw, DRAWS)


@dataclass(frozen=True)
class GateSettings:
    """What a stage says of the gate of its bank, beside what the gate itself reads."""

    gate: str = ""  # module:Class; empty for none
    gate_learning_rate: float = 0.0  # 0: as the experts'


@dataclass(frozen=True)
class StartSettings:
    """What a stage says of where its bank starts, and of what learns; in its key where it is not the default."""

    prior: Sequence[Sequence[float]] | None = None  # [K, E]; None: one expert for each objective, the preference itself
    trains: str = "both"
    start: str = "independent"  # of experts that are new: a random A of their own, or one that they share
    draw: str = UNIFORM  # how preferences are drawn, see `rl.preference_draws`
    prior_from: Mapping[str, object] | None = None  # another prior, which its needs find: see `PriorFrom`


@dataclass(frozen=True)
class PriorFrom:
    """A prior that is known when its stages are finished.

    Attributes:
        prior: Its `module:Class` as `kind`, and its settings, see `priors.make_prior`.
        stages: That find it.
    """

    prior: Mapping[str, object]
    stages: tuple[Stage, ...]


def gate_path(gate: str) -> str:
    """Return what a stage says for a gate that is named by word or as `module:Class`; empty for none.

    Raises:
        ConfigError: If it is neither.

    Example:
        >>> gate_path("prompt"), gate_path("none"), gate_path("mine:Gate")
        ('paretune.models.prompt_gate:PromptGate', '', 'mine:Gate')
    """
    if ":" not in gate:
        check_choice("gate", gate, (*GATES, "module:Class"))
    return GATES.get(gate, gate)


def bank_stage(
    settings: Any,
    completions: int,
    seed: int,
    gate: str = "",
    experts: Sequence[Stage] = (),
    prior: FloatArray | None = None,
    trains: str = "both",
    start: str = "independent",
    prior_from: PriorFrom | None = None,
    preference: FloatArray | None = None,
) -> Stage:
    """Describe one policy for all preferences, or for one: experts, and a gate that weighs them.

    Args:
        settings: The method's settings, those of `DrawnBankSettings`, `BankSettings` or `ExpertSettings` among them.
        completions: Its budget.
        seed: Training seed.
        gate: `module:Class` of a gate; empty weighs experts by the preference alone.
        experts: Stages to start from: all adapters that they leave, in their order, and the gate that the last of them
            leaves which has one. None: new experts, and a new gate.
        prior: Expert weights at each corner of the simplex, `[K, E]`, between which they are linear; by default one
            expert for each objective, weighed as the preference says. Without stages to start from it says how many
            experts there are.
        trains: `both`; the `gate` alone, on experts that stay as they are; or the `experts` alone, under the gate that
            `experts` left, or the prior.
        start: Where nothing is started from: `independent`, each expert from a random A of its own; or `shared`.
        prior_from: What finds a prior in the place of the linear one, `prior`, and is given that.
        preference: The one that all prompts are for, `[K]`; by default each prompt draws its own.

    Returns:
        A stage of kind `bank`, which leaves an adapter for each expert and the gate; or of kind `gate`, which leaves
        that alone.

    Raises:
        ConfigError: If what is to learn is not there, what is to stay was never trained, or preferences are to be drawn
            in a way of their own beside the one that all prompts are for.
    """
    check_choice("trains", trains, TRAINS)
    if trains == "gate" and not (gate and experts):
        raise ConfigError(
            "a gate that learns alone must have a name and experts to weigh, got "
            f"{'no experts' if gate else 'no gate'}. Give the stages that train the experts, or train both."
        )
    if trains == "experts" and gate and gate not in {str(each.settings.get("gate", "")) for each in experts}:
        raise ConfigError(
            f"experts that learn alone under gate '{gate}' must start from a stage that trained it, got none. Put that "
            "stage among experts, or train both."
        )
    check_choice("start", start, STARTS)
    rule = None if prior is None else weighed(np.eye(len(prior)), prior).tolist()
    draw = str(getattr(settings, "draw", UNIFORM))
    check_draw(draw, preference)
    started = asdict(StartSettings(rule, trains, start, draw, None if prior_from is None else prior_from.prior))
    return Stage(
        kind="gate" if trains == "gate" else "bank",
        run=BANK,
        settings={
            **asdict(GateSettings()), **expert_settings(settings), **(gate_settings(settings) if gate else {}),
            "gate": gate, **changed(StartSettings, started),
        },
        member={} if preference is None else {"objective_weights": [float(weight) for weight in preference]},
        needs=(*experts, *(() if prior_from is None else prior_from.stages)),
        completions=completions,
        seed=seed,
    )  # fmt: skip


@dataclass(frozen=True)
class GatedSettings(ExpertSettings):
    """Settings of methods that train a gate: what it is, and how it learns."""

    gate: str = field(default="block", metadata=PLANNING)  # a word of `GATES` or module:Class
    width: int = field(default=32, metadata=PLANNING)  # hidden units of each of the gate's networks
    gate_learning_rate: float = field(default=0.0, metadata=PLANNING)  # 0: as the experts'
    gate_block: int = field(default=0, metadata=LATER)  # whose input a gate of tokens reads, for blocks from it on
    context: str = field(default="own", metadata=LATER)  # or, as controls, blind and shuffled
    form: str = field(default="free", metadata=LATER)  # or softmax: probabilities times gate_scale
    gate_scale: float = field(default=1.0, metadata=LATER)  # of the softmax form: what its weights sum to
    gate_temperature: float = field(default=1.0, metadata=LATER)  # of the softmax form
    gate_kl: float = field(default=0.0, metadata=LATER)  # distance to the prior in the loss, see rl/gate_terms.py
    gate_balance: float = field(default=0.0, metadata=LATER)  # squared variation of what experts get, in the loss
    gate_entropy: float = field(default=0.0, metadata=LATER)  # bonus of the softmax form
    top_1: bool = field(default=False, metadata=LATER)  # the largest weight alone, its gradient straight through

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gate_learning_rate >= 0:
            raise ConfigError(
                f"gate_learning_rate must not be negative, got {self.gate_learning_rate}. Write 0 for the experts' own."
            )
        if self.width < 1:
            raise ConfigError(f"width must be at least 1, got {self.width}. Try 32; for no gate at all, gate: none.")
        gate_path(self.gate)
        check_choice("context", self.context, CONTEXTS)
        check_choice("form", self.form, FORMS)
        for name in ("gate_scale", "gate_temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}. Try 1.")
        for name in ("gate_kl", "gate_balance", "gate_entropy", "gate_block"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}. Write 0.")
        if self.gate_entropy and self.form != "softmax":
            raise ConfigError(
                f"gate_entropy must be 0 in the free form, whose weights are no probabilities, got {self.gate_entropy}."
                " Write form: softmax."
            )
        if ":" not in self.gate:  # one of a user's own says itself what it reads
            check_read(self, "form", {"gate_scale": ("softmax",), "gate_temperature": ("softmax",)})
        check_read(self, "gate", {"gate_block": ("token",)})
        if not gate_path(self.gate):
            check_unread(self, GATE_FIELDS, "without a gate")

    def gate_for(self, task: Task) -> str:
        """Return what a stage of a task says of the gate, see `gate_path`.

        Raises:
            ConfigError: If the task's model has no such block as the gate is to read.
        """
        gate = gate_path(self.gate)
        if gate == GATES["token"]:  # one of a user's own says itself what it reads
            check_gate_block_of(task.model, self.gate_block)
        return gate


# of `GatedSettings`, in a stage where they are not the defaults
GATE_FIELDS = (
    "width", "gate_learning_rate", "gate_block", "context", "form", "gate_scale", "gate_temperature", "gate_kl",
    "gate_balance", "gate_entropy", "top_1",
)  # fmt: skip


def gate_settings(settings: Any) -> dict[str, object]:
    """Return what a method's settings say of its gate, as far as it is not the default."""
    made = changed(GatedSettings, {name: getattr(settings, name) for name in GATE_FIELDS if hasattr(settings, name)})
    return {**made, "context_version": SHUFFLED_VERSION} if made.get("context") == "shuffled" else made


def changed(kind: Any, values: Mapping[str, object]) -> dict[str, object]:
    """Return those values that are not the defaults of a dataclass."""
    defaults = {each.name: each.default for each in fields(kind) if each.default is not MISSING}
    return {name: value for name, value in values.items() if value != defaults[name]}
