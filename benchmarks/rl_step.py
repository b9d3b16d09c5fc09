"""Samples per second of one reinforcement-learning update, beside TRL's GRPOTrainer, in interleaved pairs.

Both sides: the embedded base model, LoRA of rank 8 on all linear layers but the head, the same prompts and reward
functions, beta 0.05 with a reference pass, 64 completions (8 prompts x 8) of 32 new tokens, AdamW, the same number of
threads. TRL runs with the settings that are fastest for it here: no gradient checkpointing, fp32 (bf16 is its default
on a GPU). The end-of-text token is replaced by one the model never samples, so that every completion has 32 tokens.

    python benchmarks/rl_step.py --json rl_step.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAIRS, WARM_UP, THREADS = 7, 2, 2
GROUP, COMPLETIONS, NEW_TOKENS, RANK, ALPHA, BETA, LEARNING_RATE = 8, 64, 32, 8, 16, 0.05, 1e-3
POPULATION = 6


def endless_base(source: Path, target: Path) -> Path:
    """Copy a model folder and name the padding token its end of text, which the model never samples."""
    shutil.copytree(source, target)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((target / name).read_text())
        settings["eos_token_id"] = settings["pad_token_id"]
        (target / name).write_text(json.dumps(settings))
    settings = json.loads((target / "tokenizer_config.json").read_text())
    settings["eos_token"] = settings["pad_token"]
    (target / "tokenizer_config.json").write_text(json.dumps(settings))
    return target


def our_step(folder: Path, experts: int) -> Callable[[], float]:
    """Return a function that makes one update of a population and says how many seconds it took."""
    import numpy as np

    import paretune
    from paretune.core.ledger import Ledger
    from paretune.models.bank import ExpertBank
    from paretune.models.base import load_base
    from paretune.objectives.scoring import Scorer
    from paretune.rl.learner import Learner, LearnerSettings, Member

    task = paretune.load_task("counselling")
    base = load_base(str(folder))
    bank = ExpertBank(base, experts, RANK, ALPHA)
    bank.initialise([0] * experts)
    weights = np.full(len(task.objectives), 1 / len(task.objectives))
    members = [Member(weights, seed, (10**9,), Ledger()) for seed in range(experts)]
    rows = task.splits["train"]
    prompt_ids = [tuple(base.encode(task.format_prompt(str(row["prompt"])))) for row in rows]
    settings = LearnerSettings(LEARNING_RATE, GROUP, COMPLETIONS)
    learner = Learner(bank, Scorer(task.objectives), rows, prompt_ids, members, BETA, NEW_TOKENS, settings)

    def step() -> float:
        start = time.perf_counter()
        learner.update(lambda member, length: None, lambda event: None)
        return time.perf_counter() - start

    return step


def trl_trainer(folder: Path, steps: int, between: Callable[[float], None]) -> Any:
    """Return a GRPOTrainer that calls `between` with the seconds of each of its steps."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    import paretune
    from paretune.objectives import brevity, empathy, reflection

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            between(time.perf_counter() - self.start)

    task = paretune.load_task("counselling")
    statements = [str(row["prompt"]) for row in task.splits["train"]]

    def on_statement(reward: Callable[..., list[float | None]], name: str) -> Callable[..., list[float | None]]:
        def scored(prompts: list[str], completions: list[str], statement: list[str], **columns: Any) -> Any:
            return reward(prompts=statement, completions=completions)

        scored.__name__ = name
        return scored

    rewards = [
        on_statement(reflection.reflection, "reflection"),
        on_statement(empathy.empathy, "empathy"),
        on_statement(brevity.brevity, "brevity"),
    ]
    settings = GRPOConfig(
        output_dir=str(folder.parent / "trl"),
        per_device_train_batch_size=COMPLETIONS,
        gradient_accumulation_steps=1,
        num_generations=GROUP,
        max_completion_length=NEW_TOKENS,
        beta=BETA,
        learning_rate=LEARNING_RATE,
        temperature=1.0,
        max_steps=steps,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        reward_weights=[1 / 3] * 3,
    )
    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
        reward_funcs=rewards,
        args=settings,
        train_dataset=Dataset.from_dict(
            {"prompt": [task.format_prompt(text) for text in statements], "statement": statements}
        ),
        processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", lora_dropout=0.0),
        callbacks=[Clock()],
    )


def measure() -> dict[str, Any]:
    """Run the pairs and return medians and ratios."""
    import torch

    torch.set_num_threads(THREADS)
    from paretune.tasks import load_task

    seconds: dict[str, list[float]] = {"trl": [], "single": [], "population": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = endless_base(Path(load_task("counselling").model), Path(temporary) / "base")
        single, population = our_step(folder, 1), our_step(folder, POPULATION)

        def between(trl_seconds: float) -> None:
            seconds["trl"].append(trl_seconds)
            seconds["single"].append(single())
            seconds["population"].append(population())
            print(" ".join(f"{name} {values[-1]:.3f}s" for name, values in seconds.items()), flush=True)

        trl_trainer(folder, WARM_UP + PAIRS, between).train()
    kept = {name: values[WARM_UP:] for name, values in seconds.items()}
    rates = {
        "trl": [COMPLETIONS / value for value in kept["trl"]],
        "single": [COMPLETIONS / value for value in kept["single"]],
        "population": [POPULATION * COMPLETIONS / value for value in kept["population"]],
    }
    return {
        "single_vs_trl": statistics.median(a / b for a, b in zip(rates["single"], rates["trl"], strict=True)),
        "population_vs_trl": statistics.median(a / b for a, b in zip(rates["population"], rates["trl"], strict=True)),
        "samples_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "seconds": kept,
        "threads": THREADS,
        "pairs": PAIRS,
        "population": POPULATION,
    }


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    result = measure()
    print(json.dumps({key: value for key, value in result.items() if key != "seconds"}, indent=2))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
