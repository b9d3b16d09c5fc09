"""Do labels say what is so? Probe controlled tasks, whose correlation is known, and count right labels."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

import paretune
from paretune.models.bank import ExpertBank
from paretune.models.mixing import Mixing
from paretune.models.tree import tree_log_probs
from paretune.relations.labels import PairEstimates, label
from paretune.rl.objective_gradients import up_projections
from paretune.tasks.controlled import ControlledTask
from paretune.tasks.controlled.fields import rank_correlations
from paretune.tasks.controlled.store import load_instance

RHOS = (0.8, 0.2, 0.0, -0.2, -0.8)
RIGHT = {  # at .2, just beyond the margin of .15, more samples than these may be needed
    0.8: ("correlated",),
    0.2: ("correlated", "undetermined"),
    0.0: ("independent",),
    -0.2: ("competing", "undetermined"),
    -0.8: ("competing",),
}
COLUMNS = """right: label fits rho. covered: the interval holds the number over all completions. wrong: the label
contradicts that number. mean, half: of the estimates and of their intervals' half widths. true: that number's range."""
SEEDS, TINY_SEEDS = 20, 2
SAMPLES = 1024


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tiny", action="store_true", help="two seeds, to see that it runs")
    seeds = TINY_SEEDS if arguments.parse_args().tiny else SEEDS
    disable_progress_bar()  # of loading a model
    began = time.perf_counter()
    print(f"{SAMPLES:,} completions a task, {seeds} seeds; {len(RHOS)} correlations\n{COLUMNS}\n")
    heads = f"{'right':>6} {'covered':>8} {'wrong':>5} {'mean':>7} {'half':>6}  {'true':^16} labels"
    print(f"{'rho':>5}  {'level':<10}{heads}")
    for rho in RHOS:
        family = paretune.load_task({"controlled": {"rho": rho}})
        labelled: dict[str, list[Labelled]] = {"rewards": [], "gradients": []}
        for seed in range(seeds):
            probe = paretune.probe(family, samples=SAMPLES, seed=seed)
            listed = Listed(family, seed)
            labelled["rewards"].append(Labelled.of(probe.rewards.correlations, listed.rank_correlation()))
            labelled["gradients"].append(Labelled.of(probe.gradients.cosines, listed.cosine()))
        for level, rows in labelled.items():
            print(f"{rho:>+5.1f}  {level:<10}{line(rows, RIGHT[rho])}", flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s")


@dataclass(frozen=True)
class Labelled:
    """What a probe said of one task, and what is so.

    Attributes:
        label: Its label.
        value: Its number; NaN where it is missing.
        half: Half the width of its interval.
        covered: Whether the interval holds the true number.
        true: The number over all completions.
    """

    label: str
    value: float
    half: float
    covered: bool
    true: float

    @classmethod
    def of(cls, pairs: PairEstimates, true: float) -> Labelled:
        """Read what a probe said of the two objectives."""
        value, low, high = (float(each[0, 1]) for each in (pairs.values, pairs.low, pairs.high))
        return cls(pairs.labels()[0][1] or "missing", value, (high - low) / 2, low <= true <= high, true)


def line(rows: Sequence[Labelled], right: Sequence[str]) -> str:
    """Return what all seeds of one correlation say."""
    labels = [row.label for row in rows]
    counts = ", ".join(f"{each} {labels.count(each)}" for each in sorted(set(labels)))
    means = [np.nanmean([getattr(row, name) for row in rows]) for name in ("value", "half")]
    least, most = min(row.true for row in rows), max(row.true for row in rows)
    hits, covered = (sum(each) for each in zip(*((row.label in right, row.covered) for row in rows), strict=True))
    # where the true number lies on one side of the margin and the label says another
    wrong = sum(row.label not in (label(row.true, row.true), "undetermined", "missing") for row in rows)
    return (
        f"{hits:>3}/{len(rows)} {covered:>5}/{len(rows)} {wrong:>5} {means[0]:>+7.2f} {means[1]:>6.2f} "
        f"{least:>+7.2f} to {most:+.2f}  {counts}"
    )


class Listed:
    """A controlled task with all its completions, from which what a probe estimates is computed."""

    def __init__(self, family: paretune.Task, seed: int) -> None:
        from paretune.models.loading import load_base

        task = family.instance(seed)
        if not isinstance(task, ControlledTask) or task.enumeration is None:
            raise TypeError("only the completions of controlled tasks can be listed")
        self.seed, self.listed, self.base = seed, task.enumeration, load_base(task.model)
        prompts = task.splits["train"]
        self.ids = [self.base.encode(str(row["prompt"]), task.prompt_format) for row in prompts]
        stored = load_instance(task.settings)
        self.rewards = stored.fields.rewards(stored.prompts[: len(prompts)])  # [P, Y, 2]

    def rank_correlation(self) -> float:
        """Return the rank correlation within prompts under the base model."""
        import torch

        with torch.no_grad():
            table = [self._log_probs(None, index) for index in range(len(self.ids))]
        return float(rank_correlations(self.rewards, torch.cat(table).exp().numpy())[0, 1])

    def cosine(self) -> float:
        """Return the cosine of the exact gradients, in the space that the probe of this seed uses."""
        import torch

        bank = ExpertBank(self.base, 1)
        bank.initialise([self.seed])
        parameters, total = up_projections(bank), [torch.zeros(())] * 2
        for index in range(len(self.ids)):
            value = self._log_probs(bank, index).exp() @ torch.from_numpy(self.rewards[index])  # [1, 2]
            for k in range(2):
                parts = torch.autograd.grad(value[0, k], parameters, retain_graph=k == 0)
                total[k] = total[k] + torch.cat([part.flatten() for part in parts]).double()
        bank.unwrap()
        return float(torch.nn.functional.cosine_similarity(total[0], total[1], dim=0))

    def _log_probs(self, bank: ExpertBank | None, index: int) -> Tensor:
        mixing = Mixing.reference(1) if bank is None else Mixing.population(1, 1)
        ids = [self.ids[index]]
        if bank is None:
            table = tree_log_probs(self.base, None, mixing, ids, self.listed.token_ids, self.listed.length)
        else:
            with bank.using(mixing):
                table = tree_log_probs(self.base, bank, mixing, ids, self.listed.token_ids, self.listed.length)
        return table.double()


if __name__ == "__main__":
    main()
