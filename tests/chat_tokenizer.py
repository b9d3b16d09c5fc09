"""A tokenizer of bytes with special tokens, which adds some by itself as Llama's does: `import chat_tokenizer`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SPECIAL = ("<unk>", "<s>", "</s>", "<|turn|>")
UNKNOWN, BEGIN, END, TURN = range(4)
TEMPLATE = "<|turn|>user {prompt}<|turn|>reply"
ADDS = {"unsaid": None, "nothing": ("", ""), "begin": ("<s> ", ""), "end": ("", " </s>"), "both": ("<s> ", " </s>")}


def save(folder: Path, adds: str = "begin", words: bool = False, **config: Any) -> Path:
    """Save it.

    Args:
        folder: Where to.
        adds: What its own file says it adds, one of `ADDS`.
        words: Read words instead of bytes: then the text of a special token is a word of its vocabulary.
        config: Further entries of its configuration, such as `add_bos_token`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = "user reply a b c".split() if words else sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *letters))}
    if words:
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        tokenizer = Tokenizer(models.BPE(vocabulary, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    if (around := ADDS[adds]) is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{around[0]}$A{around[1]}", special_tokens=[("<s>", BEGIN), ("</s>", END)]
        )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<|turn|>"],
    )  # fmt: skip
    wrapped.save_pretrained(folder)
    if adds == "unsaid":  # transformers writes what follows from its configuration
        content = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps({**content, "post_processor": None}))
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


def save_model(folder: Path, adds: str = "begin", **config: Any) -> Path:
    """Save a tiny model with this tokenizer."""
    import micro_task

    micro_task.save_model(folder, vocab_size=260, eos_token_id=END, max_position_embeddings=64)
    return save(folder, adds, **config)
