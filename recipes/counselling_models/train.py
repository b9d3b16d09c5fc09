"""Train the two small models that ship with the package: the counselling base model and the fluency judge.

    python recipes/counselling_models/train.py --output out            # about ten minutes on two cores
    python recipes/counselling_models/train.py --output out --tiny     # seconds, to see that it runs

Writes `out/base` and `out/fluency_judge`. The same machine and number of threads give the same files, bit for bit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from paretune.tasks.counselling import text

THREADS = 1  # the files depend on it; one thread is also the fastest where others use the machine
VOCABULARY = 1024  # 256 bytes, two special tokens, the rest merges learned from our text
END, PAD = "<|end|>", "<|pad|>"
TEMPLATE = "Client: {prompt}\nCounselor:"
MAX_REPLY_TOKENS = 30  # the task samples at most 32
PROMPT_LOSS = 0.15  # share of a reply token's loss that a statement's token carries: enough to learn to read


@dataclass(frozen=True)
class Training:
    """How one of the two models is made."""

    part: str  # of the situations, see `paretune.tasks.counselling.text`
    seed: int
    broken: bool  # whether its text has broken replies
    layers: int
    hidden: int
    heads: int
    intermediate: int
    steps: int
    batch: int = 24  # statements
    replies: int = 4  # for each statement; they share its prefill
    matrix_rate: float = 0.02  # Muon, for the matrices inside the blocks
    other_rate: float = 4e-3  # AdamW, for embeddings and norms
    warmup: int = 50


BASE = Training("train", 11, True, layers=3, hidden=160, heads=5, intermediate=416, steps=2600)
JUDGE = Training("judge", 12, False, layers=2, hidden=128, heads=4, intermediate=320, steps=1500)


def main() -> None:
    """Train tokenizer, base model and judge, and write their folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder that receives base/ and fluency_judge/")
    parser.add_argument("--tiny", action="store_true", help="a few steps on a few sentences")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    started = time.perf_counter()
    tokenizer = train_tokenizer(500 if arguments.tiny else 10000)
    for name, training in {"base": BASE, "fluency_judge": JUDGE}.items():
        chosen = replace(training, steps=6, batch=8, layers=1, warmup=2) if arguments.tiny else training
        model = train_model(name, chosen, tokenizer)
        save(model, tokenizer, arguments.output / name)
    print(f"done in {time.perf_counter() - started:.0f} s: {arguments.output}")


def train_tokenizer(count: int) -> PreTrainedTokenizerFast:
    """Learn byte-level pair encoding from the base model's text: every text can be encoded, ours in few tokens."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    lines = [TEMPLATE.format(prompt=p) + " " + r for p, replies in compose(BASE, count) for r in replies]
    trained.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=trained, eos_token=END, pad_token=PAD, model_max_length=256, clean_up_tokenization_spaces=False
    )


def compose(training: Training, count: int) -> list[tuple[str, list[str]]]:
    """Compose statements, each with its replies."""
    source = random.Random(f"replies {training.seed}")
    statements = itertools.islice(text.statements(training.part, training.seed), count)
    return [
        (s.text, [text.reply(s, text.draw_kind(source, training.broken), source) for _ in range(training.replies)])
        for s in statements
    ]


def encode(training: Training, tokenizer: Any) -> list[list[list[int]]]:
    """Encode as many statements as training reads: the statement's token ids, then those of each reply."""
    composed = compose(training, training.steps * training.batch)
    asked = tokenizer([TEMPLATE.format(prompt=prompt) for prompt, _ in composed])["input_ids"]
    replied = iter(tokenizer([" " + reply for _, replies in composed for reply in replies])["input_ids"])
    examples = []
    for ids in asked:
        replies = [[*reply, tokenizer.eos_token_id] for reply in itertools.islice(replied, training.replies)]
        examples.append([ids, *(reply for reply in replies if len(reply) <= MAX_REPLY_TOKENS)])
    return examples


def batches(examples: list[list[list[int]]], training: Training) -> list[list[list[list[int]]]]:
    """Group examples of like length, within windows, and shuffle the groups."""
    source, made = random.Random(training.seed), []
    for start in range(0, len(examples), 32 * training.batch):
        window = sorted(examples[start : start + 32 * training.batch], key=lambda pieces: sum(map(len, pieces)))
        made += [window[first : first + training.batch] for first in range(0, len(window), training.batch)]
    source.shuffle(made)
    return made


def pack(examples: list[list[list[int]]], pad: int) -> dict[str, Tensor]:
    """Lay a statement and its replies out in one row, where each reply sees the statement and itself only.

    Returns:
        `input_ids`, `position_ids`, `targets`, `weights` `[B, T]` and `attention_mask` `[B, 1, T, T]`.
    """
    longest = max(sum(map(len, pieces)) for pieces in examples)
    shape = (len(examples), longest)
    ids, targets, positions = (torch.full(shape, fill) for fill in (pad, pad, 0))
    weights, piece_of = torch.zeros(shape), torch.full(shape, -1)
    for row, (asked, *replies) in enumerate(examples):
        start = len(asked) - 1  # the template's last token goes before every reply, to predict its first one
        ids[row, :start], positions[row, :start], piece_of[row, :start] = (
            torch.tensor(asked[:-1]),
            torch.arange(start),
            0,
        )
        targets[row, :start], weights[row, :start] = torch.tensor(asked[1:]), PROMPT_LOSS
        for piece, reply in enumerate(replies, start=1):
            here = slice(start, start + len(reply))
            ids[row, here] = torch.tensor([asked[-1], *reply[:-1]])
            positions[row, here] = torch.arange(len(asked) - 1, len(asked) - 1 + len(reply))
            targets[row, here], weights[row, here], piece_of[row, here] = torch.tensor(reply), 1.0, piece
            start += len(reply)
    index = torch.arange(longest)
    same = piece_of[:, :, None] == piece_of[:, None, :]
    asked_before = (piece_of[:, None, :] == 0) & (piece_of[:, :, None] > 0)
    seen = (same & (index[:, None] >= index)) | asked_before | (index[:, None] == index)
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    return {"input_ids": ids, "position_ids": positions, "attention_mask": mask, "targets": targets, "weights": weights}


def train_model(name: str, training: Training, tokenizer: Any) -> Any:
    """Train one model from scratch on its own text, printing progress."""
    torch.manual_seed(training.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=training.hidden,
        intermediate_size=training.intermediate,
        num_hidden_layers=training.layers,
        num_attention_heads=training.heads,
        num_key_value_heads=training.heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # with a mask and in bfloat16 on a CPU, twice as fast as the fused kernel
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimisers = [
        torch.optim.Muon(matrices, lr=training.matrix_rate, weight_decay=0.01),
        torch.optim.AdamW(others, lr=training.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    rates = [group["lr"] for optimiser in optimisers for group in optimiser.param_groups]
    print(f"{name}: composing {training.steps * training.batch} statements", flush=True)
    data = batches(encode(training, tokenizer), training)
    started, recent = time.perf_counter(), list[float]()
    for step, examples in enumerate(data, start=1):
        factor = min(1.0, step / training.warmup, (len(data) - step + 1) / (0.7 * len(data)))  # up, level, down to 0
        for optimiser, rate in zip(optimisers, rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * factor
        packed = pack(examples, tokenizer.pad_token_id)
        weights, targets = packed.pop("weights").flatten(), packed.pop("targets").flatten()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(**packed, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets, reduction="none")
        ((losses * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        recent.append(losses.detach()[weights == 1].mean().item())
        if step % 100 == 0 or step == len(data):
            spent = time.perf_counter() - started
            left = spent / step * (len(data) - step)
            mean = sum(recent[-100:]) / len(recent[-100:])
            print(
                f"{name}: step {step}/{len(data)}, reply loss {mean:.3f}, {spent:.0f} s, {left:.0f} s left", flush=True
            )
    return model


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model in half precision, with its tokenizer, as transformers loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=end, eos_token_id=end, pad_token_id=pad, do_sample=True, max_new_tokens=32
    )
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    count = json.dumps({"parameters": model.num_parameters(), "megabytes": round(size, 2)})
    print(f"{folder.name}: {count}")


if __name__ == "__main__":
    main()
