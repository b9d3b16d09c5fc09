"""What a stage spends, counted where it is spent, and the budget that stops it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from paretune.core.errors import BudgetError

COUNTS = ("prompts", "completions", "tokens", "reward_calls", "flops")
MEASURED = ("seconds", "cpu_seconds", "peak_memory_bytes", "attempts")  # what differs between equal runs
EARLIER = "earlier"  # name of attempts of which nothing is known but that there were some


def network_flops(parameters: int, tokens: int, passes: float) -> int:
    """Return the floating-point operations of some passes over tokens: 2 for each parameter, token and pass.

    A forward pass is one; a backward pass through frozen layers is one more, since only the gradients of activations
    are needed there. Attention over earlier tokens is left out, as is usual for short texts.

    Source:
        Kaplan et al. 2020, section 2.1.
    """
    return round(2 * parameters * tokens * passes)


class Seconds(NamedTuple):
    """A point in time, or a span of it.

    Attributes:
        wall: Seconds on the wall.
        cpu: Seconds that cores worked on this process, all its threads together.
    """

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Seconds:
        """Return the time now; only spans between two of these mean anything."""
        return cls(time.perf_counter(), time.process_time())

    def passed(self, parts: int = 1) -> Seconds:
        """Return what has passed since, or the share of one of several that spent it together."""
        now = Seconds.now()
        return Seconds((now.wall - self.wall) / parts, (now.cpu - self.cpu) / parts)


@dataclass
class Ledger:
    """Counts of one stage and its budget of completions.

    Rollouts and scoring charge it; completions are charged before they are sampled, so a budget is never exceeded.
    After a kill, what the lost work had spent is kept apart in `repeated`, not charged to the method. CPU seconds of a
    phase are None where some of them were not measured.
    """

    budget_completions: int | None = None
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    seconds: dict[str, float] = field(default_factory=dict)  # on the wall, by phase
    cpu_seconds: dict[str, float | None] = field(default_factory=dict)  # of the same phases
    repeated: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    peak_memory_bytes: int = 0
    scored: list[int] = field(default_factory=list)  # rewards that were made, by objective
    missing: list[int] = field(default_factory=list)  # and those that could not be made
    faults: list[str] = field(default_factory=list)  # what each reward did wrong last, for people
    attempts: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # whose seconds these are: begun -> ran on

    @property
    def completions(self) -> int:
        """Completions charged so far."""
        return int(self.counts["completions"])

    @property
    def remaining(self) -> int | None:
        """Completions left, or None without a budget."""
        return None if self.budget_completions is None else self.budget_completions - self.completions

    def charge(self, **amounts: float) -> None:
        """Add to the counts.

        Raises:
            BudgetError: If the completions would exceed the budget; nothing is charged then.
        """
        completions = int(amounts.get("completions", 0))
        if self.remaining is not None and completions > self.remaining:
            raise BudgetError(
                f"completions of a stage must stay within the {self.budget_completions} that it was planned with, got "
                f"{self.completions} spent and {completions} asked for. Ask for fewer, or plan a longer stage: the "
                "study's budget does not change it."
            )
        for name, amount in amounts.items():
            self.counts[name] += amount

    def count_rewards(self, scored: Sequence[int], completions: int, faults: Sequence[str] = ()) -> None:
        """Charge the rewards of some completions, and keep how many of each objective were made and are missing.

        Args:
            scored: Rewards that were made, by objective.
            completions: How many were asked for, of each.
            faults: What each reward did wrong, empty where nothing.
        """
        self.charge(reward_calls=completions * len(scored))
        none, silent = [0] * len(scored), [""] * len(scored)
        self.scored = [before + new for before, new in zip(self.scored or none, scored, strict=True)]
        self.missing = [before + completions - new for before, new in zip(self.missing or none, scored, strict=True)]
        self.faults = [new or old for new, old in zip(faults or silent, self.faults or silent, strict=True)]

    def fault_lines(self, names: Sequence[str]) -> list[str]:
        """Return what each reward did wrong last, or that it said None."""
        return [fault or f"{name} said None" for fault, name in zip(self.faults, names, strict=False)]

    def add_seconds(self, phase: str, seconds: float, cpu_seconds: float | None = None) -> None:
        """Add seconds to a phase, and CPU seconds where they were measured."""
        known = self.cpu_seconds.get(phase, 0.0)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        self.cpu_seconds[phase] = None if known is None or cpu_seconds is None else known + cpu_seconds

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the seconds that a block of code takes to a phase."""
        began = Seconds.now()
        yield
        self.add_seconds(phase, *began.passed())

    def state(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return {
            "budget_completions": self.budget_completions,
            "counts": dict(self.counts),
            "seconds": dict(self.seconds),
            "cpu_seconds": dict(self.cpu_seconds),
            "repeated": dict(self.repeated),
            "peak_memory_bytes": self.peak_memory_bytes,
            "scored": list(self.scored),
            "missing": list(self.missing),
            "faults": list(self.faults),
            "attempts": dict(self.attempts),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the counts of `state()`, in place.

        States of earlier versions have neither `cpu_seconds` nor `attempts`: then both are unknown.
        """
        self.budget_completions = state["budget_completions"]
        self.counts = dict(state["counts"])
        self.seconds = dict(state["seconds"])
        self.cpu_seconds = dict(state.get("cpu_seconds", dict.fromkeys(self.seconds)))
        self.attempts = dict(state.get("attempts", {EARLIER: {}} if self.seconds else {}))
        self.repeated = dict(state["repeated"])
        self.peak_memory_bytes = int(state["peak_memory_bytes"])
        for name in ("scored", "missing", "faults"):
            setattr(self, name, list(state[name]))

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take over what was spent, but keep the budget and what this ledger already knows to be repeated work."""
        self.restore({**state, "budget_completions": self.budget_completions, "repeated": self.repeated})

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Ledger:
        """Rebuild a ledger from `state()`."""
        ledger = cls()
        ledger.restore(state)
        return ledger
