"""A folder of a task with two objectives and a tiny model: `import small_task`."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

import model_folders

REWARDS = """
def first(prompts, completions, **columns):
    return [min(1.0, len(completion.split()) / 6) for completion in completions]


def second(prompts, completions, **columns):
    return [1 - min(1.0, len(completion.split()) / 6) for completion in completions]
"""


def write_task(folder: Path) -> Path:
    """Write the folder; return that of its base model."""
    base = model_folders.save_base(folder / "base")
    (folder / "rewards.py").write_text(REWARDS)
    for split, letter in zip(("train", "development", "test"), "abc", strict=True):
        lines = [
            json.dumps({"prompt": f"You feel {word} {letter}", "urgent": word == "sad"}) for word in ("sad", "tired")
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    objectives = {name: {"reward": f"rewards:{name}", "range": [0, 1]} for name in ("first", "second")}
    content = {
        "model": str(base),
        "prompts": {split: f"{split}.jsonl" for split in ("train", "development", "test")},
        "max_prompt_tokens": 8,
        "max_completion_tokens": 6,
        "objectives": objectives,
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(content))
    return base
