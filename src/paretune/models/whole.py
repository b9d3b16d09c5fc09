"""Loading a model with nothing missing, left over or broken: transformers fills gaps with random numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from paretune.core.errors import ModelError
from paretune.core.model_files import ROTARY, check_model_files, is_old_buffer
from paretune.core.printable import brief, printable_line
from paretune.core.progress_bars import quiet_transformers

LONGEST = 400  # characters of what transformers says


def load_whole(loader: Any, name: str, dtype: torch.dtype, what: str, kind: str, look: bool = False) -> tuple[Any, Any]:
    """Load a model and its tokenizer.

    Args:
        loader: An auto class of transformers.
        name: Folder or hub id.
        dtype: Number format of its parameters.
        what: How messages name it.
        kind: What the loader loads, for messages.
        look: Whether names and shapes are all that is wanted: no number is read, which takes a moment at any size.

    Raises:
        ModelError: If it cannot be loaded as that, lacks parameters or holds others, has NaN or infinity among them, or
            its tokenizer has ids that it has no embedding for.
    """
    from transformers import AutoTokenizer

    check_model_files(name, what)
    try:
        with quiet_transformers():
            model, loading = loader.from_pretrained(
                name, dtype=dtype, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True,
                trust_remote_code=False, device_map="meta" if look else None,
            )  # fmt: skip
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # transformers raises anything about files that it cannot read
        said = printable_line(f"{type(error).__name__}: {error}")
        said = said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."
        raise ModelError(
            f"{what} must be a folder or hub id of a {kind} with safetensors, got '{name}' ({said}). Check the path, "
            "or save the model with save_pretrained."
        ) from error
    length = tokenizer.model_max_length
    if isinstance(length, bool) or not isinstance(length, (int, float)):
        raise ModelError(
            f"tokenizer of {what} '{name}' must have a number as model_max_length, got {brief(length)}. Correct its "
            "tokenizer_config.json."
        )
    _check_keys(loading, model, name, what, kind)
    if not look:
        _check_finite(model, name, what)
        _fuse_activations(model)
    _check_vocabulary(model, tokenizer, name, what)
    if what == "model":  # a reward model ends no text
        ended = named_end(model.generation_config, model.config, tokenizer, name)
        check_end(ended, tokenizer, embedding_rows(model), name)
    return model, tokenizer


def _check_keys(loading: Mapping[str, Any], model: Any, name: str, what: str, kind: str) -> None:
    made = type(model).__name__
    advice = f"Save it with save_pretrained from the {made} that was trained."
    if loading["missing_keys"]:
        raise ModelError(
            f"{what} must be a whole {kind}, got '{name}' without {_some(loading['missing_keys'])}. {advice}"
        )
    if loading["mismatched_keys"]:
        key, found, wanted = min(loading["mismatched_keys"])
        raise ModelError(
            f"{what} must have parameters of the shapes that its config.json asks for, got {key} of {list(found)} in "
            f"place of {list(wanted)} in '{name}'. {advice}"
        )
    turns = any(each.endswith("inv_freq") for each, _ in model.named_buffers())
    left = [
        key for key in loading["unexpected_keys"]
        if not is_old_buffer(model.config.model_type, key) or (ROTARY.fullmatch(key) and not turns)
    ]  # fmt: skip
    if left:
        raise ModelError(
            f"{what} must hold the parameters of a {kind} ({made}) and no others, got '{name}' with {_some(left)}. "
            f"{advice}"
        )


def _some(keys: Collection[str]) -> str:
    first = ", ".join(sorted(keys)[:3])
    return first if len(keys) <= 3 else f"{first} and {len(keys) - 3} more"


def _check_finite(model: Any, name: str, what: str) -> None:
    for path, parameter in model.named_parameters():
        if parameter.dtype not in (torch.float32, torch.float16, torch.bfloat16) or not parameter.numel():
            continue
        if not bool(torch.isfinite(torch.stack(parameter.detach().aminmax())).all()):
            raise ModelError(
                f"{what} must have finite parameters, got NaN or infinity in {path} of '{name}'. Take a copy from "
                "before its training went wrong."
            )


def _fuse_activations(model: Any) -> None:
    """Compute GELU by its tanh formula in one kernel where transformers writes it out: the same up to rounding."""
    from transformers.activations import FastGELUActivation, NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) in (FastGELUActivation, NewGELUActivation):
                setattr(module, name, torch.nn.GELU(approximate="tanh"))


def embedding_rows(model: Any) -> int | None:
    """Return for how many token ids a model has an embedding; None for the few encoders that read characters."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (NotImplementedError, AttributeError):
        return None


def named_end(generation: Any, config: Any, tokenizer: Any, name: str) -> tuple[int, ...]:
    """Return the token ids that end a completion: what the first of three sources names.

    Args:
        generation: Settings of generation, or None where a model has none of its own.
        config: Configuration of the model.
        tokenizer: Its tokenizer.
        name: Name of the model, for messages.

    Returns:
        The ids; none where an empty list says that every completion has the full length.

    Raises:
        ModelError: If they are no whole numbers, or nothing names one.
    """
    named = (getattr(source, "eos_token_id", None) for source in (generation, config, tokenizer))
    ids = next((each for each in named if each is not None), None)
    if ids is None:
        raise ModelError(
            f"model must name an end-of-text token, got none in '{name}'. Set eos_token_id in its "
            "generation_config.json, or [] there if each completion is to have the full length."
        )
    found = tuple(ids) if isinstance(ids, (list, tuple)) else (ids,)
    if any(isinstance(each, bool) or not isinstance(each, int) for each in found):
        raise ModelError(
            f"eos_token_id of model '{name}' must be token ids, got {brief(ids)}. Correct its "
            "generation_config.json or config.json."
        )
    return found


def check_end(ids: Sequence[int], tokenizer: Any, rows: int | None, name: str) -> None:
    """Check that the tokens which end a completion can occur.

    Raises:
        ModelError: If the model has no embedding for one, or none is named beside a tokenizer with such a token.
    """
    if not ids and tokenizer.eos_token is not None:
        raise ModelError(
            f"eos_token_id of model '{name}' must name the token that ends a text, got [] beside the eos_token "
            f"{brief(tokenizer.eos_token)} of its tokenizer. Correct its generation_config.json or config.json."
        )
    beyond = [each for each in ids if each < 0 or (rows is not None and each >= rows)]
    if beyond:
        raise ModelError(
            f"eos_token_id of model '{name}' must be ids of its {'' if rows is None else f'{rows} '}tokens, got "
            f"{beyond[0]}. Correct its generation_config.json, config.json or tokenizer_config.json."
        )


def _check_vocabulary(model: Any, tokenizer: Any, name: str, what: str) -> None:
    from tokenizers import Tokenizer

    rows = embedding_rows(model)
    if rows is None:
        return
    file = Path(name) / "tokenizer.json"
    # classes of transformers add default tokens of their own, which nothing but their very text brings in
    known = Tokenizer.from_file(str(file)).get_vocab() if file.is_file() else tokenizer.get_vocab()
    ids = [*known.values(), *({tokenizer.pad_token_id} - {None})]
    if not ids:
        raise ModelError(f"{what} must come with its tokenizer, got one without tokens in '{name}'. Save it there too.")
    if max(ids) >= rows:
        raise ModelError(
            f"{what} must have an embedding for each id of its tokenizer, got {rows} for ids up to {max(ids)} in "
            f"'{name}'. Save the tokenizer that it was trained with, or call resize_token_embeddings and train."
        )
