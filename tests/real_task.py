"""A folder with a task of two objectives on a tiny real model: `import real_task`, beside `model_folders`."""

from __future__ import annotations

import json
from pathlib import Path

import model_folders

REWARDS = """
def early(prompts, completions, **columns):
    return [sum(word in "a b c d e f" for word in text.split()) / 8 for text in completions]

def late(prompts, completions, **columns):
    return [sum(word in "You I feel keep my your" for word in text.split()) / 8 for text in completions]
"""
TASK = """
name: tiny
model: ./model
prompts: {train: train.jsonl, development: development.jsonl, test: test.jsonl, column: prompt}
template: "Client : {prompt}"
max_prompt_tokens: 12
max_completion_tokens: 8
objectives:
  early: {reward: "rewards:early"}
  late: {reward: "rewards:late"}
"""


def write(folder: Path) -> Path:
    """Write the task's files and return its `task.yaml`."""
    folder.mkdir(parents=True, exist_ok=True)
    model_folders.save_base(folder / "model")
    for split, ending in (("train", "a b"), ("development", "c d"), ("test", "e f")):
        prompts = [f"{start} {ending}" for start in ("You", "I feel", "my sister", "keep")]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts))
    (folder / "rewards.py").write_text(REWARDS)
    (folder / "task.yaml").write_text(TASK)
    return folder / "task.yaml"
