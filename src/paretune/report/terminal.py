"""The results in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from paretune.core.protocols import MetricRow
from paretune.records.study import StudyRecords
from paretune.report.comparison import comparisons
from paretune.report.costs import costs
from paretune.report.measured import achieved, judged, measured, rows_of
from paretune.report.ranking import ranking
from paretune.report.wording import interval, number, table_cell

HEADS = (
    "method", "hypervolume, naive", "policies", "completions", "seconds",
    "tokens/s to base", "seeds",
)  # fmt: skip
SHARE = "captured share"  # a column of tasks whose optimum is known


def text_table(study: StudyRecords, rows: Sequence[MetricRow]) -> str:
    """Align one line per method under a heading for each task and budget; brackets hold 95 % intervals over seeds."""
    blocks, waiting = [], []
    for part in comparisons(study):
        if all(cell.state == "pending" for method in part.methods for cell in method.cells.values()):
            broken = any(cell.message for method in part.methods for cell in method.cells.values())
            waiting.append(f"{part.title}: {'nothing that can be used' if broken else 'not run yet'}")
            continue
        mine, utilities = rows_of(part, rows), achieved(part, rows)
        everything = (*part.methods, *part.untrained)
        score, scores = judged(part, rows)
        shares = {each.name: measured(mine, each.name, "captured_share") for each in everything}
        shown = {"achieved utility": utilities, score: scores}
        if any(share.value is not None for share in shares.values()):
            shown[SHARE] = shares
        rank = f"rank by {score.split()[-1]}"
        lines: list[tuple[str, ...]] = [(HEADS[0], rank, *shown, *HEADS[1:])]
        spent = {cost.method: cost for cost in costs(part, rows)}
        ranked = dict(ranking(part, rows))
        for method in everything:
            cost, cells = spent.get(method.name), method.cells
            volume = measured(mine, method.name, "pareto_optimality", "naive")
            numbers = ["0", "none", "none", "1"]
            if cost is not None:
                numbers = [table_cell(cost.policies)]
                numbers += ["not charged" if method.ceiling else number(cost.completions.value)]
                numbers += [number(each.value) for each in (cost.seconds_sum, cost.speed_ratio)]
            done = sum(cell.state == "done" for cell in cells.values())
            lines.append(
                (
                    method.name,
                    ranked[method.name],
                    *(interval(values[method.name]) for values in shown.values()),
                    interval(volume),
                    *numbers,
                    f"{done}/{len(cells)}",
                )
            )
        blocks.append(f"{part.title}\n{_aligned(lines)}")
    if waiting:
        blocks.append("\n".join(waiting))
    return "\n\n".join(blocks)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    return "\n".join(row.rstrip() for row in rows)
