"""The base model of a controlled task: a tiny transformer over letters, drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paretune.tasks.controlled.settings import LETTERS

HIDDEN, BLOCKS, HEADS, INNER = 32, 2, 2, 64
POSITIONS = 32
EMBEDDING_SPREAD = 1.0  # standard deviation of token and of position embeddings
GAIN = 0.5  # of the blocks' matrices, times 1 / sqrt(inputs): what a prompt says adds up nearly linearly
ATTENTION_GAIN = 0.5  # of queries and keys: small, so that a prompt's letters are read evenly
HEAD_SCALE = 3.0  # length of a head row: the final norm bounds logits to this times sqrt(HIDDEN)
HEARD = 0.3  # share of what the base writes into the head's directions that is kept: it leaves room to sharpen


def save_model(alphabet: int, random: np.random.Generator, folder: Path) -> None:
    """Draw a GPT-2 and write it with its tokenizer into a folder.

    The parameters are drawn in fp64 and rounded to fp32, so equal settings give an equal model on any machine. The
    vocabulary is the alphabet: prompts and completions are letters, and no letter ends a text.
    """
    import torch
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=alphabet, n_embd=HIDDEN, n_inner=INNER, n_layer=BLOCKS, n_head=HEADS,
        n_positions=POSITIONS, bos_token_id=None, eos_token_id=None, pad_token_id=None, tie_word_embeddings=False,
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    state: dict[str, Any] = model.state_dict()
    head = random.standard_normal((alphabet, HIDDEN))
    head *= HEAD_SCALE / np.linalg.norm(head, axis=1, keepdims=True)
    muffle = _muffle(head)
    for name, value in state.items():
        if name.startswith("lm_head"):
            drawn = head
        elif name.endswith("bias"):
            drawn = np.zeros(value.shape)
        elif value.ndim == 1:
            drawn = np.ones(value.shape)  # norms
        else:
            drawn = random.standard_normal(tuple(value.shape))
            if name.endswith(("wte.weight", "wpe.weight")):
                drawn = EMBEDDING_SPREAD * drawn @ muffle
            else:
                drawn *= (ATTENTION_GAIN if "c_attn" in name else GAIN) / np.sqrt(value.shape[0])
                if name.endswith("c_attn.weight"):
                    drawn[:, 2 * HIDDEN :] *= GAIN / ATTENTION_GAIN  # values
                if name.endswith("c_proj.weight"):
                    drawn = drawn @ muffle
        state[name] = torch.from_numpy(drawn.astype(np.float32))
    model.load_state_dict(state)
    model.generation_config = GenerationConfig(eos_token_id=[])
    model.save_pretrained(folder)
    _save_tokenizer(alphabet, folder)


def _muffle(head: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix that keeps the share `HEARD` of what the head reads and everything else, `[H, H]`."""
    directions = np.linalg.svd(head, full_matrices=False)[2]
    return np.asarray(np.eye(HIDDEN) - (1 - HEARD) * directions.T @ directions)


def _save_tokenizer(alphabet: int, folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({letter: index for index, letter in enumerate(LETTERS[:alphabet])}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS).save_pretrained(folder)
