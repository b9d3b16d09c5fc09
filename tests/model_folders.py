"""Tiny model folders made from code, for tests that need files: `import model_folders`."""

from __future__ import annotations

from pathlib import Path

WORDS = (
    "<pad> <end> <unk> Client : Counselor You I feel keep sad tired alone my sister your Hmm . ? a b c d e f".split()
)
CONTEXT_TOKENS = 24


def save_tokenizer(folder: Path) -> None:
    """Save a word-level tokenizer over `WORDS` that pads with `<pad>` and adds nothing."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    ).save_pretrained(folder)


def save_base(folder: Path) -> Path:
    """Save a language model of one layer with random parameters."""
    from transformers import LlamaForCausalLM

    return _save(LlamaForCausalLM, folder)


def save_classifier(folder: Path, logits: int = 1, pad_id: int | None = 0) -> Path:
    """Save a sequence classifier of one layer with random parameters."""
    from transformers import LlamaForSequenceClassification

    return _save(LlamaForSequenceClassification, folder, num_labels=logits, pad_token_id=pad_id)


def save_encoder_classifier(folder: Path) -> Path:
    """Save a sequence classifier whose tokens see those after them, so that padding counts unless it is masked."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        num_labels=1,
        pad_token_id=0,
        initializer_range=0.5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def _save(kind: type, folder: Path, **settings: object) -> Path:
    import torch
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=None,
        eos_token_id=1,
        initializer_range=0.5,  # spread enough that two texts have two scores
        **settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder
