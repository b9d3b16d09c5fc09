"""A rival that nobody here wrote: TRL's GRPOTrainer, once for each preference, scored exactly beside our own policies.

    python recipes/meta_policy/trl_rival.py -o docs/results/data/meta_policy/trl                  # all parts
    python recipes/meta_policy/trl_rival.py -o docs/results/data/meta_policy/trl --part competing
    python recipes/meta_policy/trl_rival.py -o docs/results/data/meta_policy/trl --sweep          # tuning instance only
    python recipes/meta_policy/trl_rival.py -o /tmp/trl --tiny                                    # to see it run

LoRA of the same rank, scale and layers, the same prompts, rewards, beta, group and batch as ours, and R completions for
each of eleven preferences. TRL is given one reward, `w.r`. Its adapters are saved by PEFT, read as a foreign solution
set, and each answers its own preference. One file for each instance, `PART-INSTANCE.csv`: what is there is not run
again.

What TRL maximises is not quite `w.r - beta KL`, see `beta_of`, and what is the same on these tasks:

- Its advantages are rewards above the mean of the whole group, a share (G-1)/G of what leave-one-out gives, so its
  coefficient is (G-1)/G beta. Scaled by each group's deviation, `scale_rewards: group`, rewards change their unit from
  group to group; the coefficient is then divided by the mean deviation under the base model, so that both agree at the
  start.
- KL is k3 of each token times the ratio (`use_bias_correction_kl`), whose gradient at a ratio of 1 is that of the KL of
  the token's own distribution. What an early token does to the KL of later ones is left out; ours has it.
- Every completion has the same length, so that `grpo`, `bnpo`, `dr_grpo` and `dapo` are one loss.
- Learning rates fall linearly to 0, Adam is (.9, .999), the last parameters are kept: TRL's defaults. Ours are
  constant, (.9, .99), and an average of the parameters is handed over.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from kinds import Exact  # type: ignore[import-not-found]  # beside this file

from paretune.core.answers import Nearest
from paretune.core.errors import ConfigError, ParetuneError, RecordError
from paretune.core.imports import import_name
from paretune.core.preferences import FloatArray, das_dennis
from paretune.core.protocols import Assembly
from paretune.core.task import Task
from paretune.models.loading import unwrap
from paretune.models.solutions import SolutionSet
from paretune.objectives.scoring import Scorer
from paretune.optimum.exact import gains
from paretune.rl.outcomes import tables
from paretune.tasks import load_task

sys.path.insert(0, str(Path(__file__).parents[1]))
from csv_lines import write_lines  # type: ignore[import-not-found]  # one folder up

PARTS = {"competing": (-0.8, 0.0), "competing_mixed": (-0.8, 0.5)}  # rho, heterogeneity
INSTANCES, TUNING = (0, 1, 2), 10_000
COMPLETIONS, DIVISIONS = 4096, 10  # R, of each of eleven preferences
SWEPT_DIVISIONS = 2  # of the sweep: both corners and the centre
DECIMALS = 6
GROUP, BATCH, RANK, ALPHA = 8, 64, 8, 16
TINY = {"alphabet": 4, "length": 2}


@dataclass(frozen=True)
class TrlSettings:
    """What is swept; names, units and meanings are TRL's. Defaults: what the sweep on the tuning instance chose."""

    num_iterations: int = 4
    learning_rate: float = 5e-3
    loss_type: str = "grpo"
    scale_rewards: str = "none"


SWEPT = [  # of the loss types one alone, see above
    TrlSettings(iterations, rate, "grpo", scale)
    for iterations in (1, 4, 16) for rate in (2.5e-3, 5e-3, 1e-2) for scale in ("none", "group")
]  # fmt: skip


def beta_of(task: Task, weights: FloatArray, settings: TrlSettings) -> float:
    """Return the coefficient under which TRL's objective is `w.r - beta KL`, up to what the module says.

    Args:
        task: The task instance.
        weights: Of its objectives, `[K]`.
        settings: Of TRL.
    """
    beta = task.beta * (GROUP - 1) / GROUP
    if settings.scale_rewards == "none":
        return beta
    log_reference, rewards = tables(task, task.splits["train"], Scorer(task.objectives))
    return beta / mean_deviation(np.exp(log_reference), rewards @ weights)


def mean_deviation(probabilities: FloatArray, values: FloatArray) -> float:
    """Return the standard deviation of values within prompts, `[P, Y]` both, its mean over prompts."""
    shares = probabilities / probabilities.sum(axis=1, keepdims=True)
    means = (shares * values).sum(axis=1, keepdims=True)
    return float(np.sqrt((shares * (values - means) ** 2).sum(axis=1)).mean())


def train_one(
    task: Task, weights: FloatArray, completions: int, seed: int, settings: TrlSettings, folder: Path
) -> float:
    """Train one adapter with TRL, save it as PEFT does, and return the CPU seconds of `GRPOTrainer.train`.

    Args:
        task: The task instance.
        weights: Of its objectives, `[K]`.
        completions: How many TRL samples; a remainder below one batch is not.
        seed: Of TRL, and of the adapter's start.
        settings: Of TRL.
        folder: Where the adapter goes.
    """
    import torch

    torch.manual_seed(seed)
    trainer = make_trainer(task, weights, completions, seed, settings, folder.parent / "trainer")
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    trainer.model.save_pretrained(folder)
    return seconds


def make_trainer(
    task: Task, weights: FloatArray, completions: int, seed: int, settings: TrlSettings, output: Path
) -> Any:
    """Return a GRPOTrainer for one preference; it starts as the base model."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    functions = [import_name("reward", str(objective.reward)) for objective in task.objectives]

    def utility(
        prompts: Sequence[str], completions: Sequence[str], statement: list[str], instance: list[str], **columns: Any
    ) -> list[float]:
        each = [function(prompts=statement, completions=completions, instance=instance) for function in functions]
        return [float(value) for value in weights @ np.asarray(each)]

    rows = task.splits["train"]
    tokenizer = AutoTokenizer.from_pretrained(task.model, padding_side="left")
    # ids behind the vocabulary, which the model never says: prompts are equally long, and no letter ends a text
    tokenizer.add_special_tokens({"eos_token": "<end>", "pad_token": "<pad>"})
    config = GRPOConfig(
        output_dir=str(output), seed=seed,
        per_device_train_batch_size=BATCH, gradient_accumulation_steps=1, num_generations=GROUP,
        max_steps=completions // BATCH * settings.num_iterations, max_completion_length=task.max_completion_tokens,
        beta=beta_of(task, weights, settings), temperature=1.0,
        use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", save_strategy="no",
        logging_strategy="no", disable_tqdm=True,
        **asdict(settings),
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(task.model, dtype="float32"),
        reward_funcs=[utility],
        args=config,
        train_dataset=Dataset.from_dict(
            {
                "prompt": [task.prompt_format.text(str(row["prompt"])) for row in rows],
                "statement": [str(row["prompt"]) for row in rows],
                "instance": [str(row["instance"]) for row in rows],
            }
        ),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", fan_in_fan_out=True
        ),
    )
    trainer.remove_callback(PrinterCallback)  # it prints figures at the end, whatever is asked
    return trainer


def as_solutions(task: Task, adapters: Sequence[Path], preferences: FloatArray) -> SolutionSet:
    """Return foreign adapters as a solution set: each answers the preference that it was trained for, and those near.

    Args:
        task: The task instance.
        adapters: PEFT folders, one for each preference.
        preferences: `[M, K]`.

    Raises:
        AdapterError: If there is not one for each.
    """
    return SolutionSet.from_assembly(task, Assembly(tuple(adapters), Nearest(preferences)), "trl", "single-policy")


@dataclass(frozen=True)
class Trained:
    """What TRL trained for some preferences on one instance.

    Attributes:
        preferences: `[M, K]`.
        gained: J above the base model's for each, exact, on test prompts, `[M]`.
        possible: The most that could be, `[M]`.
        seconds: CPU seconds of each run, `[M]`.
    """

    preferences: FloatArray
    gained: FloatArray
    possible: FloatArray
    seconds: FloatArray

    @property
    def share(self) -> float:
        """The captured share: a ratio of sums."""
        return float(self.gained.sum() / self.possible.sum())


def trained(task: Task, preferences: FloatArray, completions: int, seed: int, settings: TrlSettings) -> Trained:
    """Train one adapter for each preference `[M, K]` of a task instance, and score them exactly."""
    with tempfile.TemporaryDirectory() as folder:
        adapters = [Path(folder) / f"{number:03d}" for number in range(len(preferences))]
        seconds = [
            train_one(task, weights, completions, seed, settings, adapter)
            for weights, adapter in zip(preferences, adapters, strict=True)
        ]
        gained, possible = exact_gains(as_solutions(task, adapters, preferences), task, preferences)
    return Trained(preferences, gained, possible, np.asarray(seconds))


def exact_gains(solutions: SolutionSet, task: Task, preferences: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return what a solution set gains in J over the base model for preferences, and what is possible, `[M]` each."""
    exact = Exact(task, preferences)
    try:
        scores = exact.scores(solutions.policies_for(preferences))
    finally:
        unwrap(solutions.base)
    return gains(scores.mean(axis=1), exact.base.mean(axis=0), exact.best.mean(axis=1), preferences)


def lines_of(
    part: str, instance: int, completions: int, settings: TrlSettings, found: Trained
) -> list[dict[str, object]]:
    """Return one line for each preference, the weight of the first objective telling which."""
    told = {name: repr(each) if isinstance(each, float) else each for name, each in asdict(settings).items()}
    return [
        {
            "part": part, "instance": instance, "completions": completions, **told,
            "weight": round(float(preference[0]), 6), "gained": float(gained), "possible": float(possible),
            "cpu_seconds": round(float(seconds), 3),
        }
        for preference, gained, possible, seconds in zip(
            found.preferences, found.gained, found.possible, found.seconds, strict=True
        )
    ]  # fmt: skip


def main() -> int:
    """Train what is wanted and missing; return the exit code."""
    defaults = TrlSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--part", choices=sorted(PARTS), help="one part; by default all")
    parser.add_argument("--sweep", action="store_true", help="the settings of TRL on a tuning instance instead")
    parser.add_argument("--completions", type=int, default=COMPLETIONS, help="of each preference")
    parser.add_argument("--num-iterations", type=int, default=defaults.num_iterations)
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--scale-rewards", default=defaults.scale_rewards, choices=("none", "group", "batch"))
    parser.add_argument("--tiny", action="store_true", help="two batches for corners and centre of a tiny task")
    arguments = parser.parse_args()
    prepare()
    chosen = replace(
        defaults, num_iterations=arguments.num_iterations, learning_rate=arguments.learning_rate,
        scale_rewards=arguments.scale_rewards,
    )  # fmt: skip
    completions = 2 * BATCH if arguments.tiny else arguments.completions
    divisions = SWEPT_DIVISIONS if arguments.sweep or arguments.tiny else DIVISIONS
    instances = INSTANCES[:1] if arguments.tiny else INSTANCES
    if arguments.sweep:
        cells = [(part, TUNING, each) for part in PARTS for each in (SWEPT[:2] if arguments.tiny else SWEPT)]
    else:
        cells = [(part, instance, chosen) for instance in instances for part in PARTS]
    try:
        for part, instance, settings in cells:
            if arguments.part not in (None, part):
                continue
            swept = "".join(f"-{value}" for value in asdict(settings).values()) if arguments.sweep else ""
            file = arguments.output / f"{part}-{instance}{swept}.csv"
            if file.exists():
                check_same(file, {"completions": completions, **asdict(settings)})
                continue
            began = time.perf_counter()
            task = task_of(part, instance, arguments.tiny)
            found = trained(task, das_dennis(len(task.objectives), divisions), completions, instance, settings)
            write_lines(lines_of(part, instance, completions, settings, found), file, DECIMALS)
            print(
                f"{file.name}: share {found.share:.3f}, {found.seconds.mean():.1f} CPU s a run, "
                f"{time.perf_counter() - began:.0f} s",
                flush=True,
            )
    except ParetuneError as error:
        print(f"trl_rival: {error}", file=sys.stderr)
        return 2
    return 0


def check_same(file: Path, settings: Mapping[str, int | float | str]) -> None:
    """Check that a table was made with these settings.

    Raises:
        ConfigError: If it was made with others.
        RecordError: If it does not say so.
    """
    with file.open(encoding="utf-8", newline="") as handle:
        line = next(csv.DictReader(handle), None)
    if line is None:
        raise RecordError(f"'{file}' must hold a line for each preference, got none. Remove it, and run this again.")
    for name, value in settings.items():
        if line.get(name) is None:
            raise RecordError(
                f"'{file}' must have a column {name}, got {', '.join(line)}. Remove it, or name another folder."
            )
        if type(value)(line[name]) != value:
            raise ConfigError(
                f"{name} must be {line[name]}, with which '{file}' was made, got {value}. Choose another output folder."
            )


def task_of(part: str, instance: int, tiny: bool) -> Task:
    """Return an instance of a part's task."""
    rho, heterogeneity = PARTS[part]
    shape = TINY if tiny else {}
    return load_task({"controlled": {"rho": rho, "heterogeneity": heterogeneity, **shape}}).instance(instance)


def prepare() -> None:
    """Let one thread do the work, and let nothing be sent or printed that is not ours."""
    import torch

    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    torch.set_num_threads(1)
    from datasets.utils.logging import disable_progress_bar
    from transformers.utils import logging

    disable_progress_bar()
    logging.set_verbosity_error()
    logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
