"""What `paretune elicit` prints: two policies side by side, and what was concluded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paretune.core.preferences import centre, preference_label

if TYPE_CHECKING:
    from paretune.benchmark.candidates import Candidates
    from paretune.elicitation.elicitation import Inferred

PROMPTS = 2  # beside each question: with the scores, a screen


def replies(count: int) -> str:
    """Return `1 reply`, or `3 replies`."""
    return f"{count} repl{'y' if count == 1 else 'ies'}"


def opening(offered: Candidates, earlier: int) -> list[str]:
    """Return what is compared, and how much was replied before."""
    cell = offered.cell
    trained = f"{cell.budget_completions:,} completions, seed {cell.seed}"
    lines = [
        f"{len(offered.evaluations)} policies of {cell.method} on {cell.task} ({trained}), with scores on "
        f"{offered.task.test_prompts} test prompts"
    ]
    return lines + ([f"going on from {replies(earlier)}"] if earlier else [])


def two_policies(offered: Candidates, first: int, second: int, turn: int) -> list[str]:
    """Return scores of two policies with their differences, and what both say to the same prompts."""
    pair = [offered.evaluations[each] for each in (first, second)]
    rows = [
        (each.name, *(one.scores[place] for one in pair), _decimals(offered.units[place]))
        for place, each in enumerate(offered.task.trained)
    ]
    if offered.beta:
        rows.append((f"KL (each nat costs {offered.beta:.3g})", *(one.kl for one in pair), 3))
    wide = max(len(name) for name, *_ in rows)
    lines = [f"  {'':<{wide}}  {'A':>8}  {'B':>8}  {'A less B':>9}"]
    lines += [
        f"  {name:<{wide}}  {_number(a, digits):>8}  {_number(b, digits):>8}  {_signed(a - b, digits):>9}"
        for name, a, b, digits in rows
    ]
    for prompt, said_a, said_b in offered.samples(first, second, turn, PROMPTS):
        lines += ["", f"  {_indented(prompt)}", f"    A: {_indented(said_a)}", f"    B: {_indented(said_b)}"]
    return lines


def conclusion(offered: Candidates, found: Inferred, count: int) -> list[str]:
    """Return the weights that were inferred, the policy that serves them best, and what it gains and loses."""
    names = [each.name for each in offered.task.trained]
    wide = max(map(len, names))
    lines = [f"your weights after {replies(count)}, with 95 % intervals:"]
    lines += [
        f"  {name:<{wide}}  {_number(weight, 2)} [{_number(low, 2)}, {_number(high, 2)}]"
        for name, weight, low, high in zip(names, found.preference, found.low, found.high, strict=True)
    ]
    if found.contradicted:
        lines.append(f"  {found.contradicted} of {replies(count)} prefer what these weights do not")
    best = offered.evaluations[found.best]
    digits = [_decimals(unit) for unit in offered.units]
    lines.append(f"best measured policy for them: that of {preference_label(best.preference, names)}")
    lines.append(f"  scores: {_listed(names, [_number(*each) for each in zip(best.scores, digits, strict=True)])}")
    usual = offered.answering(centre(len(names)))
    if usual is not None and usual != found.best:
        change = best.scores - offered.evaluations[usual].scores
        gains = _listed(names, [_signed(*each) for each in zip(change, digits, strict=True)])
        lines.append(f"  against the policy of equal weights: {gains}")
    lines.append(
        f"  what not knowing you better costs on average: {_number(found.expected_regret, 3)} of utility, in units of "
        "the objectives' ranges"
    )
    return lines


def _listed(names: Sequence[str], values: Sequence[str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))


def _decimals(unit: float) -> int:
    """Return how many decimals show a thousandth of a unit."""
    return max(3 - math.floor(math.log10(unit)), 0)


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _signed(value: float, digits: int) -> str:
    return ("+" if round(value, digits) > 0 else "") + _number(value, digits)


def _indented(text: str) -> str:
    return text.strip().replace("\n", "\n       ")
