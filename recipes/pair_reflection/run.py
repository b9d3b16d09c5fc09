"""Train one method of each family on real counselling prompts (PAIR) and compare them.

    python recipes/pair_reflection/run.py --data DIR --model DIR --reward-model DIR           # settings below
    python recipes/pair_reflection/run.py --data DIR --model DIR --reward-model DIR --tiny    # to see it run
    python recipes/pair_reflection/run.py --data DIR --model DIR --reward-model DIR --meta-policy --output NEW
    python recipes/pair_reflection/run.py --data DIR --model DIR --reward-model DIR --sweep --output SWEEP

With `--meta-policy` the rows are those of the study of that family, on two seeds. With `--sweep` those that train
policies of their own learn at every rate of a sweep, on a tuning seed and development prompts.
Writes a task, a study and its results under `--output`. The same command finishes what a killed one left.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paretune.benchmark.runner import run
from paretune.benchmark.summary import summary
from paretune.core.errors import ConfigError, ParetuneError
from paretune.tasks.strict_yaml import to_yaml

TEMPLATE = "Client: {prompt}\nCounselor:"  # what the base model was trained on
REWARD_TEMPLATE = TEMPLATE + "{completion}<|endoftext|>"  # completions open with a space of their own
MAX_PROMPT_TOKENS = 224  # PAIR's longest prompt has 210 with the template; a longer one is refused, never cut
MAX_COMPLETION_TOKENS = 40  # nine tenths of PAIR's replies have at most 45
BETA = 0.05  # reward per nat of KL
PASS = {"reflection": 0.35, "empathy": 0.5, "brevity": 0.5}  # .35: about the judge's mean for replies of level 2

BUDGET = 15_000  # completions for each method: 5,000 an expert of `rewarded_soups`, 15 minutes on two cores
COMPLETIONS_EACH = 3_000  # at least, for each policy of a method that trains many: 5 of `linear`, 4 of `weight_grid`
LEARNING_RATE = 1e-3  # of 3e-4, 1e-3, 3e-3 on development prompts; README.md has the figures
STEPS = {"epochs": 1, "average_decay": 0.0}  # which the learning rate was chosen for
UPDATE_DTYPE = "bfloat16"  # updates take about a sixth less time than in fp32 on a CPU with bf16 arithmetic
SWEPT_ROWS = ("mixture_of_experts", "rewarded_soups", "linear", "one_policy")  # mod has the experts of soups
SWEPT_RATES = [3e-4, 1e-3, 3e-3]
SAMPLES = 4  # completions for each test prompt and preference

SPLITS = {"train": "train", "development": "dev", "test": "test"}  # ours -> the file's
TINY_PROMPTS, TINY_COMPLETION_TOKENS = 8, 12
QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "…": "...", "–": "-", "—": "-"})


def main() -> int:
    """Check what is given, write task and study, run it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of train.jsonl, dev.jsonl and test.jsonl")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--reward-model", type=Path, required=True, help="folder of the reflection classifier")
    parser.add_argument("--output", type=Path, default=Path("results/pair_reflection"), help="new or unfinished folder")
    parser.add_argument("--tiny", action="store_true", help="a few prompts and updates")
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument("--meta-policy", action="store_true", help="rows of that family, two seeds; another --output")
    rows.add_argument("--sweep", action="store_true", help="sweep their learning rate; another --output")
    arguments = parser.parse_args()
    began, from_nothing = time.monotonic(), not (arguments.output / "study").exists()
    try:
        study = write_study(arguments)
        result = run(study, arguments.output / "study")  # the same as `paretune run study.yaml -o study`
    except ParetuneError as error:
        print(f"pair_reflection: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    (arguments.output / "command.txt").write_text(shlex.join(["python", *sys.argv]) + "\n", encoding="utf-8")
    call = {"seconds": round(time.monotonic() - began), "from_nothing": from_nothing}
    (arguments.output / "call.json").write_text(json.dumps(call) + "\n", encoding="utf-8")
    print(summary(result))
    if arguments.sweep:
        print(f"utility, KL and J: python recipes/learner/kl_of_sweep.py {arguments.output / 'study'}")
    elif not arguments.meta_policy:
        print(f"page of results: python {Path(__file__).with_name('summarise.py')} {arguments.output}")
    return 0 if result.complete else 1


def write_study(arguments: argparse.Namespace) -> Path:
    """Write the task's folder and the study file under the output folder; return the study file."""
    model = check_folder("--model", arguments.model, ("config.json",), "the base model")
    reward_model = check_folder("--reward-model", arguments.reward_model, ("config.json",), "the reflection classifier")
    names = [f"{name}.jsonl" for name in SPLITS.values()]
    data = check_folder("--data", arguments.data, names, "the PAIR prompts")
    rows = {split: read_rows(data / f"{name}.jsonl") for split, name in SPLITS.items()}
    output: Path = arguments.output
    task = output / "task"
    task.mkdir(parents=True, exist_ok=True)
    write_texts(task, rows)
    for split, each in rows.items():
        write_prompts(task / f"{split}.jsonl", split, each[:TINY_PROMPTS] if arguments.tiny else each)
    shutil.copy(Path(__file__).with_name("rewards.py"), task / "rewards.py")
    write_yaml(task / "task.yaml", task_file(model, reward_model, arguments.tiny))
    study = output / "study.yaml"
    content = study_file(arguments.tiny, arguments.meta_policy or arguments.sweep)
    write_yaml(study, swept(content) if arguments.sweep else content)
    return study


def check_folder(option: str, folder: Path, names: Sequence[str], what: str) -> Path:
    """Return a folder as an absolute path, or say what is missing where."""
    path = folder.expanduser().resolve()
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        got = f"no {', '.join(missing)} in it" if path.is_dir() else "no such folder"
        raise ConfigError(
            f"{option} must be the folder of {what}, with {', '.join(names)}, got '{folder}' ({got}; looked in "
            f"{path}). Correct the path; recipes/pair_reflection/README.md says where to get it."
        )
    return path


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read lines of `{"prompt", "responses": [{"text", "level"}]}`, quotation marks and spaces evened out."""
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            replies = [even_out(reply["text"]) for reply in row["responses"]]
            rows.append({"prompt": even_out(row["prompt"]), "topic": row.get("topic", ""), "replies": replies})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{file}:{number} must be a JSON object with a prompt and responses that have a text, got "
                f"{type(error).__name__}: {error}. Correct the line."
            ) from error
    return rows


def even_out(text: str) -> str:
    """Replace typographic quotation marks and dashes by plain ones, and any white space by one space."""
    return " ".join(text.translate(QUOTES).split())


def write_prompts(file: Path, split: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write the prompts of a split, numbered; the replies people wrote stay behind."""
    lines = [
        json.dumps({"prompt_id": f"{split}-{index:03d}", "prompt": row["prompt"], "topic": row["topic"]})
        for index, row in enumerate(rows)
    ]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_texts(task: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Write what the fluency audit learns from (all training text) and is scaled by (the development replies)."""
    train = [text for row in rows["train"] for text in (row["prompt"], *row["replies"])]
    dev = [text for row in rows["development"] for text in row["replies"]]
    (task / "fluency_texts.json").write_text(json.dumps({"train": train, "dev": dev}, indent=0), encoding="utf-8")


def task_file(model: Path, reward_model: Path, tiny: bool) -> dict[str, Any]:
    """Return the content of task.yaml."""
    reflection = {"model": str(reward_model), "template": REWARD_TEMPLATE, "transform": "sigmoid"}
    return {
        "name": "pair",
        "model": str(model),
        "prompts": {**{split: f"{split}.jsonl" for split in SPLITS}, "column": "prompt"},
        "template": TEMPLATE,
        "max_prompt_tokens": MAX_PROMPT_TOKENS,
        "max_completion_tokens": TINY_COMPLETION_TOKENS if tiny else MAX_COMPLETION_TOKENS,
        "beta": BETA,
        "objectives": {
            "reflection": {"reward": reflection, "range": [0, 1], "pass": PASS["reflection"]},
            "empathy": {"reward": "rewards:empathy", "range": [0, 1], "pass": PASS["empathy"]},
            "brevity": {"reward": "rewards:brevity", "range": [0, 1], "pass": PASS["brevity"]},
        },
        "audit": {"fluency": {"reward": "rewards:fluency", "range": [0, 1]}},
        "reference_point": [0, 0, 0],
    }


def study_file(tiny: bool, meta_policy: bool = False) -> dict[str, Any]:
    """Return the content of study.yaml: one method of each family and one seed, or rows of one; equal completions."""
    shared: dict[str, Any] = {"learning_rate": LEARNING_RATE, "update_dtype": UPDATE_DTYPE, **STEPS}
    each, measured = (
        ({"completions_each": 24}, {"measured_each": 8}) if tiny else ({"completions_each": COMPLETIONS_EACH}, {})
    )
    if tiny:
        shared |= {"group_size": 4, "completions_per_update": 16}
    linear = {**shared, **each}
    own = {"weight_grid": {**linear, **measured}, "rewarded_soups": shared}
    if meta_policy:
        own = {"rewarded_soups": shared, "mod": shared, "mixture_of_experts": shared}
    return {
        "name": "pair_meta_policy" if meta_policy else "pair_reflection",
        "tasks": ["task"],
        "methods": {"linear": linear, **own, "one_policy": shared},
        "budget": {"completions": 96 if tiny else BUDGET},
        "seeds": [0, 1] if meta_policy else [0],
        "preferences": {"grid": 1 if tiny else 2, "unseen": 1},
        "evaluation": {"samples": 1 if tiny else SAMPLES},
    }


def swept(study: dict[str, Any]) -> dict[str, Any]:
    """Return a study of the rows that train policies of their own which tunes their learning rate."""
    methods = {name: dict(study["methods"][name]) for name in SWEPT_ROWS}
    for settings in methods.values():
        del settings["learning_rate"]
    tune = {"learning_rate": SWEPT_RATES, "instances": 1}
    return {**study, "name": "pair_sweep", "methods": methods, "seeds": [0], "tune": tune}


def write_yaml(file: Path, content: dict[str, Any]) -> None:
    """Write plain data, keys in the order given."""
    file.write_text(to_yaml(content), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
