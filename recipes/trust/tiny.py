"""A task on a model of one layer, a study of it, and both finished: what the other scripts mutate, kill and damage."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PREFERENCE = "early=0.5,late=0.5"
TASK = """name: tiny
model: ./model
prompts: {train: train.jsonl, development: development.jsonl, test: test.jsonl, column: prompt, allow_overlap: false}
template: "Client : {prompt}"
max_prompt_tokens: 12
max_completion_tokens: 8
beta: 0.05
objectives:
  early: {reward: "rewards:early", range: [0, 1], pass: 0.5, version: 1}
  late: {reward: "rewards:late", range: [0, 1], pass: 0.5, version: 1}
audit:
  length: {reward: "audits:length", range: [0, 1], version: 1}
reference_point: [0, 0]
learner: {learning_rate: 0.01}
"""
STUDY = """name: tiny_study
tasks: [task/task.yaml]
methods:
  linear: {completions_each: 32}
  weight_grid: {completions_each: 64, measured_each: 16}
  mixture_of_experts: {}
budget: {completions: 256}
seeds: 1
preferences: {grid: 1, unseen: 1}
evaluation: {samples: 1, prompts: 2, kl_matched: false}
workers: 1
"""
REWARDS = """
def early(prompts, completions, **columns):
    return [sum(word in "a b c d e f" for word in text.split()) / 8 for text in completions]


def late(prompts, completions, **columns):
    return [sum(word in "You I feel keep my your" for word in text.split()) / 8 for text in completions]
"""
AUDITS = """
def length(prompts, completions, **columns):
    return [min(1.0, len(text) / 80) for text in completions]
"""
RUNS_MODELS = (  # modules that a command which runs a model would import late
    "torch",
    "transformers.models.llama.modeling_llama",
    "paretune.benchmark.probe",
    "paretune.benchmark.runner",
    "paretune.benchmark.score",
    "paretune.benchmark.summary",
    "paretune.models.solutions",
    "paretune.rl.learner",
)
WORDS = "<pad> <end> <unk> Client : You I feel keep sad tired my sister your Hmm . ? a b c d e f".split()


def offline() -> None:
    """Set what a small model needs: one thread, no network, no bars. Call it before torch is imported."""
    for name, value in {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "PARETUNE_NO_MEASURING": "1",  # a plan takes no seconds to find out how fast this machine is
    }.items():
        os.environ[name] = value
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    os.environ["PARETUNE_CACHE"] = os.environ.get("PARETUNE_CACHE", "") or str(Path.home() / ".cache" / "paretune")
    if str(ROOT / "src") not in sys.path:
        sys.path.insert(0, str(ROOT / "src"))


def write_study(folder: Path) -> Path:
    """Write `study.yaml` and its task into a folder and return the study's path."""
    write_task(folder / "task")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    return folder / "study.yaml"


def write_task(folder: Path) -> None:
    """Write a task of two objectives with its prompts, rewards and model."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, ending in (("train", "a b"), ("development", "c d"), ("test", "e f")):
        rows = [
            {"prompt": f"{start} {ending}", "prompt_id": f"{split}-{index}", "topic": "made up", "level": index}
            for index, start in enumerate(("You", "I feel", "my sister", "keep"))
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "rewards.py").write_text(REWARDS, encoding="utf-8")
    (folder / "audits.py").write_text(AUDITS, encoding="utf-8")
    (folder / "task.yaml").write_text(TASK, encoding="utf-8")
    _write_model(folder / "model")


def _write_model(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=None,
        eos_token_id=1,
        initializer_range=0.5,  # spread enough that two texts have two scores
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    with redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
        ).save_pretrained(folder)


def in_this_process() -> None:
    """Let studies run their jobs in this process, so that a run takes a second and not ten."""
    from paretune.benchmark import runner
    from paretune.executors.in_process import InProcess

    vars(runner)["LocalProcesses"] = lambda folder, threads: InProcess(1)


def in_a_child(act: Callable[[], object]) -> None:
    """Do something in a process that is forgotten, with all that it imports.

    Raises:
        SystemExit: If it failed.
    """
    process = os.fork()
    if not process:
        status = 1
        try:
            act()
            status = 0
        except BaseException:  # noqa: BLE001  # the process ends here
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(process, 0)[1]:
        raise SystemExit("what the script starts from must be made, got an error. It is printed above.")


def take_output(printed: int, errors: int) -> None:
    """Let this process print to two descriptors, as strictly as a terminal of today."""
    for number, descriptor, strictness in ((1, printed, "strict"), (2, errors, "backslashreplace")):
        os.dup2(descriptor, number)
        stream = open(number, "w", encoding="utf-8", errors=strictness, closefd=False)  # noqa: SIM115  # until it ends
        setattr(sys, "stdout" if number == 1 else "stderr", stream)


def command(*arguments: str) -> tuple[int, str, str]:
    """Run a command of paretune in this process; return its status, what it printed, and its errors."""
    from paretune.cli.main import execute

    printed, errors, path = io.StringIO(), io.StringIO(), list(sys.path)
    with redirect_stdout(printed), redirect_stderr(errors):
        status = execute(arguments)
    sys.path[:] = path
    return status, printed.getvalue(), errors.getvalue()
