"""A task so small that its optimum is known: `import micro_task`.

Eight tokens, one of which ends the text; completions of at most two tokens. All 57 completions can be listed, so the
best policy `pi* ~ pi_ref exp(w.r / beta)`, its value J* and every exact gradient are known.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from paretune.core.task import Task
    from paretune.models.bank import ExpertBank
    from paretune.models.base import BaseModel

TOKENS = "<end> a b c d e f g".split()
END = 0
LENGTH = 2
BETA = 0.1
PROMPTS = {
    "train": ["a b", "c", "d e f", "g g", "b a c", "f", "e d", "c a"],
    "development": ["a c", "g", "d d b", "f e"],
    "test": ["b b", "e", "a d f", "g c"],
}
VALUES = {  # reward of a letter: first, second objective; they compete, and b and c are the compromises
    "a": (1.0, 0.0), "b": (0.8, 0.5), "c": (0.5, 0.8), "d": (0.0, 1.0), "e": (0.2, 0.2), "f": (0.0, 0.3),
    "g": (0.3, 0.0),
}  # fmt: skip
REWARDS = f"""
VALUES = {VALUES!r}


def first(prompts, completions, **columns):
    return [sum(VALUES[letter][0] for letter in text.split()) / {LENGTH} for text in completions]


def second(prompts, completions, **columns):
    return [sum(VALUES[letter][1] for letter in text.split()) / {LENGTH} for text in completions]
"""
TASK = f"""
model: ./model
prompts: {{train: train.jsonl, development: dev.jsonl, test: test.jsonl}}
template: "{{prompt}}"
max_prompt_tokens: 4
max_completion_tokens: {LENGTH}
beta: {BETA}
objectives:
  first: {{reward: "rewards:first", pass: 0.5}}
  second: {{reward: "rewards:second", pass: 0.5}}
"""


def save_task(folder: Path) -> Path:
    """Write the task with its model, prompts and rewards, and return its task.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / "model")
    for name, split in (("train", "train"), ("dev", "development"), ("test", "test")):
        lines = [json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS[split]]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "rewards.py").write_text(REWARDS)
    (folder / "task.yaml").write_text(TASK)
    return folder / "task.yaml"


def load(folder: Path) -> Task:
    """Write the task into a folder and load it."""
    from paretune.tasks import load_task

    return load_task(save_task(folder))


def save_tokenizer(folder: Path) -> None:
    """Save a tokenizer of one token per letter; `<end>` also fills up rows."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(TOKENS)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<end>", eos_token="<end>").save_pretrained(folder)


def save_model(folder: Path, kind: str = "llama", seed: int = 0, **settings: Any) -> Path:
    """Save a tiny model with random parameters: `llama`, `qwen2`, `mistral` (a window), `falcon`, `gpt2`."""
    import torch
    from transformers import (
        FalconConfig,
        FalconForCausalLM,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    common: dict[str, Any] = {
        "vocab_size": len(TOKENS),
        "bos_token_id": None,
        "eos_token_id": END,
        "pad_token_id": None,
    }
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    # spread enough that the model is neither flat nor sure of anything, and that an expert can move it
    rotary = {**common, **shape, "max_position_embeddings": 32, "initializer_range": 0.3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any
        if kind == "llama":
            model = LlamaForCausalLM(LlamaConfig(**{**rotary, **settings}))
        elif kind == "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(**{**rotary, "num_key_value_heads": 1, **settings}))
        elif kind == "mistral":
            model = MistralForCausalLM(MistralConfig(**{**rotary, "num_key_value_heads": 1, **settings}))
        elif kind == "falcon":
            sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3}
            model = FalconForCausalLM(FalconConfig(**{**common, **sizes, "alibi": True, **settings}))
        else:
            sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "initializer_range": 0.3}
            model = GPT2LMHeadModel(GPT2Config(**{**common, **sizes, **settings}))
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def perturb(bank: ExpertBank, scale: float = 0.3, seed: int = 0) -> ExpertBank:
    """Give every factor of every expert a random value, so that each expert differs from the base model."""
    import torch

    draws = torch.randn(bank.flat.shape, generator=torch.Generator().manual_seed(seed))
    bank.flat.copy_(draws * scale)
    return bank


def completions() -> list[tuple[int, ...]]:
    """List every completion: the end at once, a letter and the end, two letters."""
    letters = range(1, len(TOKENS))
    return [(END,), *((x, END) for x in letters), *((x, y) for x in letters for y in letters)]


def text_of(ids: tuple[int, ...]) -> str:
    """Return the text of a completion."""
    return " ".join(TOKENS[token] for token in ids if token != END)


def rewards() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the rewards of every completion, `[57, 2]`."""
    rows = [[VALUES[TOKENS[token]] for token in ids if token != END] for ids in completions()]
    return np.asarray([np.sum(row, axis=0) / LENGTH if row else (0.0, 0.0) for row in rows])


def log_probs(base: BaseModel, bank: ExpertBank | None, expert_weights: list[float], prompt: list[int]) -> Tensor:
    """Return the log-probability of every completion of a prompt, `[57]`, by one plain pass, no cache, no padding."""
    import torch

    from paretune.models.mixing import Mixing

    letters = torch.arange(1, len(TOKENS), device=base.device)
    rows = torch.cat([torch.tensor(prompt, device=base.device).expand(len(letters), -1), letters[:, None]], dim=1)
    if bank is None:
        logits = base.model(rows, use_cache=False).logits
    else:
        with bank.using(Mixing.of_rows(torch.tensor([expert_weights] * len(letters), device=base.device))):
            logits = base.model(rows, use_cache=False).logits
    table = logits.float().log_softmax(dim=-1)
    first, second = table[0, -2], table[:, -1]  # [V], [7, V]
    both = first[1:, None] + second  # [7, V]
    return torch.cat([first[END : END + 1], both[:, END], both[:, 1:].flatten()])


def reference_value(log_ref: Tensor, preference: list[float]) -> float:
    """Return J of the base model: its KL is 0."""
    utility = rewards() @ np.asarray(preference)
    return float(np.exp(log_ref.detach().double().numpy()) @ utility)


def best_value(log_ref: Tensor, preference: list[float], beta: float = BETA) -> float:
    """Return `J* = beta log sum_y pi_ref(y) exp(w.r(y) / beta)`."""
    utility = rewards() @ np.asarray(preference)
    return float(beta * np.logaddexp.reduce(log_ref.detach().double().numpy() + utility / beta))


def value(log_policy: Tensor, log_ref: Tensor, preference: list[float], beta: float = BETA) -> Tensor:
    """Return `J = w . E r - beta KL`, exact and differentiable in the policy."""
    import torch

    utility = torch.tensor(rewards() @ np.asarray(preference), dtype=log_policy.dtype)
    return (log_policy.exp() * (utility - beta * (log_policy - log_ref.detach()))).sum()
