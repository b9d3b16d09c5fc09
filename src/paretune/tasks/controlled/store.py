"""Instances of controlled tasks on disk: drawn once, found again by the digest of their settings."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paretune.core.cache import CACHE_VARIABLE, cache_folder
from paretune.core.digests import digest
from paretune.core.errors import TaskError
from paretune.core.progress_bars import no_progress_bars
from paretune.core.seeds import generator
from paretune.core.text_files import parsed_json
from paretune.tasks.controlled.fields import Fields, all_completions, make_fields
from paretune.tasks.controlled.settings import PROMPTS_EACH, ControlledSettings

_log = logging.getLogger(__name__)

FILES = (
    "model/config.json", "model/model.safetensors", "model/tokenizer.json", "fields.safetensors", "instance.json",
)  # fmt: skip


@dataclass(frozen=True)
class Instance:
    """What was drawn for one instance.

    Attributes:
        folder: Where it lies; `model/` holds the base model.
        prompts: Letters of all prompts, training, development and test, `[48, letters]`.
        fields: Its rewards.
        beta: KL coefficient.
    """

    folder: Path
    prompts: NDArray[np.int64]
    fields: Fields
    beta: float


def load_instance(settings: ControlledSettings) -> Instance:
    """Return an instance, drawing it where the cache has none; that takes a second or two and loads torch.

    Raises:
        TaskError: If the cache folder cannot be written, or the wanted correlation cannot be reached.
    """
    from safetensors import SafetensorError

    folder = cache_folder("controlled") / digest(settings.plain())
    if not _is_whole(folder):
        _log.info("drawing instance %d of %s, once: it is kept in %s", settings.seed, settings.name, folder.parent)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
            try:
                _draw(settings, made)
                _move(made, folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
        except (OSError, SafetensorError) as error:  # safetensors reports a full disk in its own way
            raise TaskError(
                f"instances of controlled tasks must find room in {folder.parent}, got {error}. Make room there, or "
                f"name another folder in the environment variable {CACHE_VARIABLE}."
            ) from error
    return _read(folder)


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _move(made: Path, folder: Path) -> None:
    """Put a drawn instance in its place; another process may have been faster with an equal one."""
    if folder.exists() and not _is_whole(folder):
        shutil.rmtree(folder, ignore_errors=True)  # another process may be removing it too
    try:
        os.rename(made, folder)
    except OSError:
        if not _is_whole(folder):
            raise


@lru_cache(maxsize=64)
def _read(folder: Path) -> Instance:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        plain = parsed_json((folder / "instance.json").read_text())
        arrays = load_file(folder / "fields.safetensors")
        fields = Fields(
            arrays["shared"], arrays["by_feature"], arrays["codes"], float(arrays["scale"][0]), arrays["offset"]
        )
        return Instance(folder, np.asarray(plain["prompts"], dtype=np.int64), fields, float(plain["beta"]))
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise TaskError(
            f"instance of a controlled task must be readable, got {type(error).__name__}: {error} in {folder}. Remove "
            "that folder; it is drawn again."
        ) from error


def _draw(settings: ControlledSettings, folder: Path) -> None:
    import torch
    from safetensors.numpy import save_file

    from paretune.models.loading import load_base
    from paretune.models.mixing import Mixing
    from paretune.models.tree import tree_log_probs
    from paretune.tasks.controlled.model import save_model

    # model and prompts do not depend on the settings: tasks of one seed differ in their rewards alone
    shape = (settings.alphabet, settings.seed, settings.plain()["generator"])
    # a cold cache leaves the caller's own draws as they are
    with torch.random.fork_rng(devices=[]), no_progress_bars():
        save_model(settings.alphabet, generator("controlled model", *map(str, shape)), folder / "model")
        base = load_base(str(folder / "model"), device="cpu", dtype=torch.float32)
    prompts = draw_prompts(settings, generator("controlled prompts", *map(str, shape)))
    train = [[*row, 0] for row in prompts[:PROMPTS_EACH].tolist()]  # with the template's last letter
    with torch.no_grad():
        log_reference = tree_log_probs(
            base, None, Mixing.reference(len(train)), train, range(settings.alphabet), settings.length
        )
    fields = make_fields(
        settings.rho, settings.heterogeneity, all_completions(settings.alphabet, settings.length), prompts,
        PROMPTS_EACH, log_reference.double().numpy(), settings.alphabet, settings.objectives,
        generator("controlled rewards", *map(str, (*shape, settings.length, settings.objectives))),
    )  # fmt: skip
    arrays = {
        "shared": fields.shared, "by_feature": fields.by_feature, "codes": fields.codes,
        "scale": np.asarray([fields.scale]), "offset": fields.offset,
    }  # fmt: skip
    save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, folder / "fields.safetensors")
    plain = {"settings": settings.plain(), "prompts": prompts.tolist(), "beta": fields.scale}
    (folder / "instance.json").write_text(json.dumps(plain))  # last: it says that the rest is there


def draw_prompts(settings: ControlledSettings, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw the prompts of the three splits, no two of the same letters, `[48, letters]`."""
    bags = list(itertools.combinations_with_replacement(range(settings.prompt_letters), settings.prompt_length))
    chosen = random.permutation(len(bags))[: 3 * PROMPTS_EACH]
    return np.stack([random.permutation(bags[index]) for index in chosen]).astype(np.int64)
