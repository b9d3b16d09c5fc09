"""Measure the scores of the PAIR task on development prompts: replies people wrote, by level, and the base model's.

    python recipes/pair_reflection/measure.py --data DIR              # after run.py, which writes the task
    python recipes/pair_reflection/measure.py --data DIR --task results/tiny/task

Trains nothing. The same seed and machine print the same figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from run import even_out  # type: ignore[import-not-found]  # the script beside this one

import paretune
from paretune.core.errors import ParetuneError
from paretune.core.task import Task
from paretune.models.loading import load_base
from paretune.objectives.scoring import Scorer
from paretune.rl.evaluation import evaluate, reference_policy

SAMPLES, SEED = 8, 0  # of the base model, a prompt
STOCK = " You want to make a change but you are not sure how."  # fits anybody
Pairs = list[tuple[str, str]]  # prompt, completion


def main() -> int:
    """Print one line for each kind of reply; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of dev.jsonl")
    parser.add_argument("--task", type=Path, default=Path("results/pair_reflection/task"), help="what run.py wrote")
    arguments = parser.parse_args()
    try:
        task = paretune.load_task(arguments.task)
        rows = read_rows(arguments.data / "dev.jsonl")
    except (ParetuneError, OSError) as error:
        print(f"pair_reflection: {error}", file=sys.stderr)
        return 2
    score = Scorer((*task.objectives, *task.audit))
    print("mean of", ", ".join(objective.name for objective in score.objectives))
    for level in sorted({level for _, replies in rows for _, level in replies}):
        pairs = [(prompt, f" {text}") for prompt, replies in rows for text, own in replies if own == level]
        show(f"replies of level {level}", scored(score, pairs))
    others = [rows[(index + 1) % len(rows)][0] for index in range(len(rows))]
    paired = zip(others, rows, strict=True)
    best = [(other, f" {text}") for other, (_, replies) in paired for text, own in replies if own == 2]
    show("level 2 beside somebody else's prompt", scored(score, best))
    show(f"'{STOCK.strip()}' beside every prompt", scored(score, [(prompt, STOCK) for prompt, _ in rows]))
    base_model(task, score)
    return 0


def read_rows(file: Path) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return each prompt with its replies and their levels, evened out as in the task."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        (even_out(row["prompt"]), [(even_out(reply["text"]), int(reply["level"])) for reply in row["responses"]])
        for row in rows
    ]


def scored(score: Scorer, pairs: Pairs) -> NDArray[np.float64]:
    """Return the rewards of prompts and completions, `[N, K + audit]`."""
    return score([{"prompt": prompt} for prompt, _ in pairs], [completion for _, completion in pairs]).rewards


def show(name: str, rewards: NDArray[np.float64]) -> None:
    """Print the means over those that have a score."""
    print(f"{name} ({len(rewards)}):", " ".join(f"{mean:.2f}" for mean in np.nanmean(rewards, axis=0)))


def base_model(task: Task, score: Scorer) -> None:
    """Sample the base model and print means, correlations, lengths and how many completions end by themselves."""
    names = task.objective_names
    (record,) = evaluate(
        reference_policy(load_base(task.model), task), task.splits["development"], score, names,
        tuple(objective.name for objective in task.audit), samples=SAMPLES, seed=SEED, split="development",
    )  # fmt: skip
    show("base model", record.rewards)
    print("  correlations:", np.corrcoef(record.rewards[:, : len(names)].T).round(2).tolist())
    words = np.mean([len(text.split()) for text in record.completions])
    ended = np.mean([finish == "stop" for finish in record.finish])
    print(f"  {words:.0f} words, {ended:.2f} end within {task.max_completion_tokens} tokens")


if __name__ == "__main__":
    sys.exit(main())
