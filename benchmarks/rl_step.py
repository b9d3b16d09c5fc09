"""CPU seconds of one reinforcement-learning update, beside TRL's GRPOTrainer, in turn, in one process on one thread.

Ratios are of the least CPU seconds of a step, which other work on a shared machine disturbs least; medians and wall
time stand beside them. Phases say where our seconds go; `of_gemm_peak`, which share of what a thread can multiply.

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

PAIRS, WARM_UP, THREADS = 9, 2, 1
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


class Clock:
    """Seconds of steps by wall clock and by processor."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self._began = (0.0, 0.0)

    def start(self) -> None:
        """Begin a step."""
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """End it."""
        self.wall.append(time.perf_counter() - self._began[0])
        self.cpu.append(time.process_time() - self._began[1])

    def figures(self) -> dict[str, Any]:
        """Return what is reported of the steps after warm-up."""
        wall, cpu = self.wall[WARM_UP:], self.cpu[WARM_UP:]
        return {
            "cpu_seconds": {"min": min(cpu), "median": statistics.median(cpu)},
            "wall_seconds": {"min": min(wall), "median": statistics.median(wall)},
        }


class OurStep:
    """One update of a population at a time."""

    def __init__(self, folder: Path, experts: int) -> None:
        import numpy as np

        import paretune
        from paretune.core.ledger import Ledger
        from paretune.models.bank import ExpertBank
        from paretune.models.loading import load_base
        from paretune.objectives.scoring import Scorer
        from paretune.rl.learner import Learner
        from paretune.rl.rollout import Prompts
        from paretune.rl.rollouts import Environment
        from paretune.rl.settings import LearnerSettings
        from paretune.rl.trainees import Member, Population

        task = paretune.load_task("counselling")
        base = load_base(str(folder))
        bank = ExpertBank(base, experts, RANK, ALPHA)
        bank.initialise([0] * experts)
        weights = np.full(len(task.objectives), 1 / len(task.objectives))
        members = [Member(weights, seed, (10**9,), Ledger()) for seed in range(experts)]
        rows = task.splits["train"]
        prompts = Prompts(rows, [tuple(base.encode(str(row["prompt"]), task.prompt_format)) for row in rows])
        ranges = np.asarray([objective.range for objective in task.objectives])
        environment = Environment(Scorer(task.objectives), prompts, BETA, NEW_TOKENS, ranges, prompts)
        settings = LearnerSettings(
            learning_rate=LEARNING_RATE,
            group_size=GROUP,
            completions_per_update=COMPLETIONS,
            epochs=1,
            average_decay=0.0,
        )  # fmt: skip
        self.learner = Learner(Population(bank, members), environment, settings)
        self.clock, self.members = Clock(), members

    def __call__(self) -> None:
        """Make one update."""
        self.clock.start()
        self.learner.update(lambda member, length: None, lambda event: None)
        self.clock.stop()

    def figures(self, gemm_flops_per_second: float) -> dict[str, Any]:
        """Return seconds, the share of each phase, and how much of the peak is used."""
        phases: dict[str, float] = {}
        for member in self.members:
            for phase, seconds in member.ledger.seconds.items():
                phases[phase] = phases.get(phase, 0.0) + seconds
        flops = sum(member.ledger.counts["flops"] for member in self.members) / sum(self.clock.cpu)
        return {
            **self.clock.figures(),
            "phases": {phase: seconds / sum(phases.values()) for phase, seconds in phases.items()},
            "of_gemm_peak": flops / gemm_flops_per_second,
        }


def gemm_flops_per_second(size: int = 768, repeats: int = 20) -> float:
    """Return how many fp32 operations a second one thread makes in products of square matrices, at best."""
    import torch

    one, other = torch.rand(size, size), torch.rand(size, size)
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        torch.mm(one, other)
        seconds.append(time.process_time() - began)
    return 2 * size**3 / min(seconds)


def trl_trainer(folder: Path, steps: int, clock: Clock, between: Callable[[], None]) -> Any:
    """Return a GRPOTrainer whose steps a clock measures, and that calls `between` after each of them."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    import paretune
    from paretune.objectives import brevity, empathy, reflection

    class Measure(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.stop()
            between()

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
            {"prompt": [task.prompt_format.text(text) for text in statements], "statement": statements}
        ),
        processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", lora_dropout=0.0),
        callbacks=[Measure()],
    )


def measure() -> dict[str, Any]:
    """Run the steps in turn and return figures and ratios."""
    import torch

    torch.set_num_threads(THREADS)
    from paretune.tasks import load_task

    trl = Clock()
    with tempfile.TemporaryDirectory() as temporary:
        folder = endless_base(Path(load_task("counselling").model), Path(temporary) / "base")
        single, population = OurStep(folder, 1), OurStep(folder, POPULATION)

        def between() -> None:
            single()
            population()
            clocks = {"trl": trl, "single": single.clock, "population": population.clock}
            print(" ".join(f"{name} {clock.cpu[-1]:.3f}s" for name, clock in clocks.items()), flush=True)

        trl_trainer(folder, WARM_UP + PAIRS, trl, between).train()
    peak = gemm_flops_per_second()
    figures = {"trl": trl.figures(), "single": single.figures(peak), "population": population.figures(peak)}

    def ratio(name: str, samples: int, of: str) -> float:
        return samples * float(figures["trl"]["cpu_seconds"][of] / figures[name]["cpu_seconds"][of])

    return {
        "single_vs_trl": ratio("single", 1, "min"),
        "single_vs_trl_median": ratio("single", 1, "median"),
        "population_vs_trl": ratio("population", POPULATION, "min"),
        "population_vs_trl_median": ratio("population", POPULATION, "median"),
        "gemm_gflops_per_second": peak / 1e9,
        "figures": figures,
        "threads": THREADS,
        "steps": PAIRS,
        "population": POPULATION,
    }


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    result = measure()
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
