"""Ask whether *reflection* ranks replies that people wrote as trained raters do, on the PAIR dataset.

    python recipes/counselling_models/validate.py --data FOLDER

The folder holds JSON Lines files with rows `{"prompt", "responses": [{"text", "level"}]}`, level 0 for no reflection, 1
for a simple and 2 for a complex one. Source: Min et al. 2022, PAIR: Prompt-Aware margIn Ranking for Counselor
Reflection Scoring in Motivational Interviewing.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean

from paretune.objectives.reflection import reflection


def main() -> None:
    """Score every reply; print the mean of each level and the share of pairs ranked as the raters do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of .jsonl files")
    files = sorted(parser.parse_args().data.glob("*.jsonl"))
    if not files:
        parser.error("--data must name a folder with .jsonl files")
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    by_level: dict[int, list[float]] = defaultdict(list)
    agreed: dict[tuple[int, int], list[float]] = defaultdict(list)
    for row in rows:
        texts = [response["text"] for response in row["responses"]]
        scores = [score or 0.0 for score in reflection([row["prompt"]] * len(texts), texts)]
        rated = [(response["level"], score) for response, score in zip(row["responses"], scores, strict=True)]
        for level, score in rated:
            by_level[level].append(score)
        for (low, lower), (high, higher) in itertools.permutations(rated, 2):
            if low < high:
                agreed[low, high].append(0.5 * (higher > lower) + 0.5 * (higher >= lower))  # a tie counts half
    for level, values in sorted(by_level.items()):
        print(f"level {level}: {len(values)} replies, mean reflection {mean(values):.3f}")
    for (low, high), outcomes in sorted(agreed.items()):
        print(f"level {high} above level {low}: {mean(outcomes):.3f} of {len(outcomes)} pairs")


if __name__ == "__main__":
    main()
