"""The tokenizer of a model folder as transformers makes it, also where torch must not be imported.

Many classes of transformers take no more than the vocabulary from `tokenizer.json` and build the rest anew, and a
configuration can add tokens. So the file is read alone only where nothing of that can happen. Else transformers makes
the tokenizer, in a process of its own where torch is not imported, and what it made is kept in the cache.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from paretune.core.cache import cache_folder
from paretune.core.checked import versions
from paretune.core.digests import digest, model_digest
from paretune.core.errors import ModelError, ParetuneError
from paretune.core.model_files import read_json_object
from paretune.core.progress_bars import quiet_transformers
from paretune.core.prompt_format import special_tokens
from paretune.core.text_files import parsed_json
from paretune.records.files import write_bytes
from paretune.tasks.apart import answer_here, ask

CLASSES: Final = ("PreTrainedTokenizerFast", "TokenizersBackend")  # which take tokenizer.json as it is
KINDS: Final = ("gpt2", "llama")  # of models for which transformers never takes another class than the named one
LARGEST: Final = 1_000_000  # bytes: transformers may mend what has more than 100,000 tokens, 10 bytes each at least
HARMLESS: Final = {"backend", "chat_template", "clean_up_tokenization_spaces", "model_max_length", "padding_side"} | {
    "is_local", "local_files_only", "model_input_names", "tokenizer_class", "truncation_side",
}  # fmt: skip


def made_tokenizer(folder: Path) -> tuple[Any, Mapping[str, int], int | None] | None:
    """Return the tokenizer that a model in a folder reads with.

    Returns:
        The tokenizer of the `tokenizers` library, its special tokens, and how many embeddings the configuration asks
        for; None where it is of another library, or cannot be made: loading the model says why.

    Raises:
        ModelError: If its special tokens cannot be told from others.
    """
    from tokenizers import Tokenizer

    alone = _alone(folder)
    if alone is not None:
        return *alone, None
    made = _made(str(folder.resolve()), model_digest(str(folder)))
    if made is None:
        return None
    if "refused" in made:
        raise ModelError(made["refused"])
    return Tokenizer.from_str(made["tokenizer"]), made["special"], made["rows"]


def _alone(folder: Path) -> tuple[Any, Mapping[str, int]] | None:
    """Return what `tokenizer.json` says, where transformers would make the same of it."""
    from tokenizers import Tokenizer

    file, beside = folder / "tokenizer.json", folder / "tokenizer_config.json"
    others = ("special_tokens_map.json", "added_tokens.json")
    if file.stat().st_size > LARGEST or not beside.is_file() or any((folder / name).is_file() for name in others):
        return None
    config = read_json_object(beside, "model")
    kind = read_json_object(folder / "config.json", "model").get("model_type")
    named = {name: value for name, value in config.items() if name.endswith("_token") and value is not None}
    more = config.get("extra_special_tokens") or []
    odd = config.keys() - HARMLESS - named.keys() - {"extra_special_tokens"}
    odd = {name for name in odd if config[name] is not None}
    if odd or kind not in KINDS or config.get("tokenizer_class") not in CLASSES or not isinstance(more, list):
        return None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # noqa: BLE001  # it raises nothing narrower; loading the model says what is wrong with the file
        return None
    added = tokenizer.get_added_tokens_decoder()
    special = {str(each.content): index for index, each in added.items() if each.special}
    wanted = [*named.values(), *more]
    if len(special) < len(added) or any(not isinstance(each, str) or each not in special for each in wanted):
        return None
    special.pop(str(named.get("unk_token")), None)
    return tokenizer, special


@lru_cache(maxsize=16)
def _made(folder: str, content: str) -> Mapping[str, Any] | None:
    """Return what transformers makes of the tokenizer in a folder, from the cache where it was made before."""
    kept = cache_folder("tokenizers") / f"{digest([content, versions()])}.json"
    with contextlib.suppress(OSError, ValueError):
        return dict(parsed_json(kept.read_bytes()))
    made = describe(folder) if "torch" in sys.modules else ask(__name__, folder, f"tokenizer files of '{folder}'")
    if made is not None:
        with contextlib.suppress(ParetuneError, OSError):  # where the cache cannot be written, it is made again
            write_bytes(kept, json.dumps(made).encode())
    return None if made is None else dict(made)


def describe(folder: str) -> Mapping[str, object] | None:
    """Make a tokenizer and return it as plain data; None where it cannot be made or is of another library."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig, TokenizersBackend

    from paretune.models.whole import named_end

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            own = (Path(folder) / "generation_config.json").is_file()
            generation = GenerationConfig.from_pretrained(folder) if own else None
    except Exception:  # noqa: BLE001  # transformers raises anything about files; loading the model says what is wrong
        return None
    if getattr(type(tokenizer), "_encode_plus", None) is not TokenizersBackend._encode_plus:
        return None
    rows = getattr(config.get_text_config(), "vocab_size", None)
    try:
        special = special_tokens(tokenizer, named_end(generation, config, tokenizer, folder))
    except ModelError as error:
        return {"refused": str(error)}
    backend = tokenizer.backend_tokenizer
    return {"tokenizer": backend.to_str(), "special": special, "rows": rows if isinstance(rows, int) else None}


if __name__ == "__main__":
    answer_here(describe)
