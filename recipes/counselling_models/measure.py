"""Sample the embedded base model and measure its replies: the four objectives, the kinds of reply, some examples.

python recipes/counselling_models/measure.py                       # 1,024 replies to the development prompts
python recipes/counselling_models/measure.py --split test --samples 32
python recipes/counselling_models/measure.py --tiny                # seconds, to see that it runs
"""

from __future__ import annotations

import argparse
import collections
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from paretune.objectives import lexicon
from paretune.objectives.brevity import brevity
from paretune.objectives.empathy import empathy
from paretune.objectives.fluency import fluency
from paretune.objectives.reflection import reflection
from paretune.tasks.counselling import text

BASE = Path(text.__file__).parent / "base"
TEMPLATE = "Client: {prompt}\nCounselor:"
OBJECTIVES = (reflection, empathy, brevity, fluency)
BATCH = 128
_AFFIRMATION = re.compile(r"^(it takes|thank you|you (have|are) (not|kept|working|doing))")


def main() -> None:
    """Sample, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BASE, help="model folder")
    parser.add_argument("--split", default="development", choices=list(text.DEFAULT_SIZES))
    parser.add_argument("--samples", type=int, default=16, help="replies to each prompt")
    parser.add_argument("--examples", type=int, default=12)
    parser.add_argument("--tiny", action="store_true", help="two replies to four prompts")
    arguments = parser.parse_args()
    samples = 2 if arguments.tiny else arguments.samples
    statements = [str(row["prompt"]) for row in text.prompts(arguments.split, 4 if arguments.tiny else None)]
    prompts = [statement for statement in statements for _ in range(samples)]
    replies = sample(arguments.model, prompts)
    rewards = np.array([objective(prompts, replies) for objective in OBJECTIVES], dtype=float)  # [K, B]
    by_prompt = rewards.reshape(len(OBJECTIVES), len(statements), samples)
    print(f"{len(replies)} replies to {len(statements)} {arguments.split} prompts, temperature 1")
    for objective, row, grouped in zip(OBJECTIVES, rewards, by_prompt, strict=True):
        within = grouped.std(axis=1).mean()
        print(f"  {objective.__name__:10s} mean {row.mean():.3f}  sd {row.std():.3f}  within prompts {within:.3f}")
    print("correlations\n", np.corrcoef(rewards).round(2))
    print(f"words a reply: {np.mean([len(lexicon.words(reply)) for reply in replies]):.1f}")
    kinds = collections.Counter(kind(*row) for row in zip(prompts, replies, *rewards[:2], strict=True))
    print("kinds:", ", ".join(f"{name} {count / len(replies):.2f}" for name, count in kinds.most_common()))
    for index in range(0, len(replies), max(1, len(replies) // max(1, arguments.examples)))[: arguments.examples]:
        print(f"- {prompts[index]}\n  >{replies[index]}  {rewards[:, index].round(2).tolist()}")


def sample(folder: Path, prompts: list[str]) -> list[str]:
    """Draw one reply to each prompt at temperature 1."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    replies: list[str] = []
    for start in range(0, len(prompts), BATCH):
        asked = [TEMPLATE.format(prompt=prompt) for prompt in prompts[start : start + BATCH]]
        batch = tokenizer(asked, return_tensors="pt", padding=True)
        ids = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=32,
        )
        replies += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return replies


def kind(prompt: str, reply: str, reflected: float, felt: float) -> str:
    """Guess the kind of a reply from its words."""
    parts = lexicon.sentences(reply)
    if any(lexicon.is_question(part) and not lexicon.is_advice(part) for part in parts):
        return "question"
    if any(lexicon.is_advice(part, lexicon.turn_person(prompt)) for part in parts):
        return "advice"
    if _AFFIRMATION.search(" ".join(lexicon.words(reply))):
        return "affirmation"
    named = any(not feeling.negated for feeling in lexicon.feelings(reply))
    if named:
        return "feeling" if len(lexicon.words(reply)) < 8 else "complex reflection"
    if reflected > 0.05:
        return "simple reflection"
    return "validation" if felt else "off topic or broken"


if __name__ == "__main__":
    main()
