"""What an update was, as its events tell it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(eq=False)
class UpdateReport:
    """What an update was, for R members.

    Attributes:
        norms: Gradient norm of the first epoch, before clipping.
        moved: Whether there was anything to learn from.
        gaps: Mean difference between the log-probabilities of sampling and of the first epoch, nats a token.
        ratios: Mean ratio of each later epoch.
        clipped: Share of completions (or tokens) held by the clip in each later epoch.
        objective_weights: `[K]` of each member where a weighting chose them.
        engine: How the gradients of objectives were made, where they were; see `objective_gradients`.
        conflicts: `[K]` of each member where gradients of objectives were made: the share of its steps that turned
            against each objective of its preference.
        entropies: Mean entropy of each member's tokens in the first epoch, nats, where there is a bonus on it.
        stopped: Whether each member left out later epochs because its policy had moved far enough; empty where it may
            not.
    """

    norms: list[float]
    moved: list[bool]
    gaps: list[float]
    ratios: list[list[float]] = field(default_factory=list)
    clipped: list[list[float]] = field(default_factory=list)
    objective_weights: list[list[float]] = field(default_factory=list)
    engine: str = ""
    conflicts: list[list[float | None]] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    stopped: list[bool] = field(default_factory=list)

    def add_later(self, ratios: Tensor, clipped: Tensor) -> None:
        """Add a later epoch: ratio of each row `[B]`, and whether, or at which share, the clip holds it."""
        for epochs, rows in ((self.ratios, ratios), (self.clipped, clipped)):
            epochs.append(rows.double().view(len(self.norms), -1).mean(dim=1).tolist())

    def of(self, place: int) -> dict[str, object]:
        """Return what one member's event says."""
        event: dict[str, object] = {
            "grad_norm": self.norms[place], "moved": self.moved[place], "log_prob_gap": self.gaps[place],
        }  # fmt: skip
        if self.ratios:
            event["ratio"] = [epoch[place] for epoch in self.ratios]
            event["clipped"] = [epoch[place] for epoch in self.clipped]
        if self.objective_weights:
            event["objective_weights"] = self.objective_weights[place]
        if self.engine:
            event["engine"] = self.engine
        if self.conflicts:
            event["conflicts"] = self.conflicts[place]
        if self.entropies:
            event["entropy"] = self.entropies[place]
        if self.stopped:
            event["stopped"] = self.stopped[place]
        return event
