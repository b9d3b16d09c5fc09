"""Whether a model computes what this library relies on, tried out on a few tokens before anything trains."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from paretune.core.checked import note_checked, versions, was_checked
from paretune.core.digests import bytes_digest
from paretune.core.errors import ModelError
from paretune.core.model_config import TESTED_KINDS
from paretune.core.progress_bars import quiet_transformers
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.readers.inputs import left_pad
from paretune.models.readers.reader import Reader
from paretune.models.scoring import completion_log_probs
from paretune.models.weighed_gradients import weighed_gradients

LENGTHS, STEPS = (5, 3), 3  # tokens of two prompts, of which one is padded, and of their completions
CLOSE = 1e-4  # of the largest number compared, in fp32: kernels that add in another order differ by a tenth of that
CLOSE_BF16 = 0.1  # of the middle token: in 8 bits a mixture of experts may send a single token elsewhere


UNREAD = (
    "_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
)  # parts of a configuration that change nothing


class _Unsound(Exception):
    """What the model does instead; the sentence is put together around it."""


def check_sound(base: BaseModel) -> None:
    """Try a model out under random experts and compare with passes over one row alone, without padding or cache.

    Tried are: the base model under no expert, tokens that must not see later ones, rows of different experts in one
    padded batch, decoding with a cache from which a row leaves, log-probabilities of completions, and gradients.

    Args:
        base: A loaded model that no bank wraps.

    Raises:
        ModelError: If one of them differs, or the model cannot be run in this way.
    """
    try:
        with warnings.catch_warnings(), quiet_transformers(), torch.enable_grad():
            warnings.simplefilter("ignore")
            _try(base)
    except _Unsound as found:
        raise _refusal(base.model, base.name, str(found)) from found
    except ModelError:
        raise
    except Exception as error:  # code of any architecture may raise anything
        said = (str(error).strip() or "no text").splitlines()[0]
        raise _refusal(
            base.model, base.name, f"one that fails in a first pass ({type(error).__name__}: {said[:200]})"
        ) from error


def check_once(base: BaseModel) -> None:
    """Check a model unless one of equal configuration was checked before on this machine.

    Raises:
        ModelError: As `check_sound` does.
    """
    config = {name: value for name, value in base.model.config.to_dict().items() if name not in UNREAD}
    key = [type(base.model).__name__, str(base.dtype), base.device.type, base.pad_id, versions()]
    name = bytes_digest(json.dumps([config, key], sort_keys=True, default=str).encode())
    if not was_checked("models", name):
        check_sound(base)
        note_checked("models", name)


def check_stateless(model: Any, name: str) -> None:
    """Refuse a model that remembers more than keys and values, without running it.

    Raises:
        ModelError: If it does.
    """
    if getattr(model, "_is_stateful", False):
        raise _refusal(model, name, "one that keeps a state of all it has read, as state-space models do")


def _refusal(model: Any, name: str, got: str) -> ModelError:
    return ModelError(
        f"model must be a decoder that reads rows of tokens independently, through a cache of keys and values, got "
        f"'{name}' of model_type '{getattr(model.config, 'model_type', None)}': {got}. Take one of a kind that works: "
        f"{', '.join(TESTED_KINDS)}."
    )


def _try(base: BaseModel) -> None:
    model = base.model
    check_stateless(model, base.name)
    prompts, completions = _tokens(base)
    rows = [torch.cat([prompt, completion])[None] for prompt, completion in zip(prompts, completions, strict=True)]
    with torch.no_grad():
        untouched = [_plain(model, row)[0] for row in rows[:2]]
        for whole, prompt in zip(untouched, prompts, strict=False):
            _compare(base, _plain(model, prompt[None])[0], whole[: len(prompt)], "one whose tokens see later ones")
    bank = ExpertBank(base, 2, rank=1, alpha=1.0)
    try:
        _try_bank(bank, prompts, completions, rows, untouched)
    finally:
        bank.unwrap()


def _try_bank(
    bank: ExpertBank,
    prompts: Sequence[Tensor],
    completions: Tensor,
    rows: Sequence[Tensor],
    untouched: Sequence[Tensor],
) -> None:
    base = bank.base
    _randomise(bank)
    weights = torch.eye(2).repeat_interleave(2, dim=0)
    alone = []
    for number, row in enumerate(rows):
        with bank.using(Mixing.of_rows(weights[number : number + 1])):
            logits = _plain(base.model, row)[0, -STEPS - 1 : -1].float()
        chosen = logits.log_softmax(dim=-1).gather(1, completions[number][:, None])[:, 0]
        alone.append((logits.detach(), chosen))
    expected = torch.stack([chosen for _, chosen in alone])
    expected.sum().backward()
    gradients, expected = bank.take_gradients(), expected.detach()
    if not bool(gradients.any()):
        raise _Unsound("one whose adapters get no gradient")

    lists, population = [prompt.tolist() for prompt in prompts], Mixing.population(2, 2)
    ids, real = left_pad(base, [[*prompt, *more] for prompt, more in zip(lists, completions.tolist(), strict=True)])
    lengths = torch.full((4,), STEPS, device=base.device)
    with torch.no_grad():
        for number in range(2):
            plain = Reader(base, bank, Mixing.reference(1)).whole(
                rows[number], rows[number] >= 0, rows[number].shape[1]
            )
            _compare(base, plain[0], untouched[number], "one that is another model under adapters of no weight")
        with _in_order(bank, *ids.shape):
            batch = Reader(base, bank, Mixing.of_rows(weights)).whole(ids, real, STEPS + 1)[:, :-1]
        wanted = torch.stack([logits for logits, _ in alone])
        _compare(base, batch, wanted, "one whose rows depend on padding or on other rows of a batch")
        for mixing in (population, Mixing.of_rows(weights)):
            for step, (index, logits) in enumerate(_decoded(Reader(base, bank, mixing), lists, completions)):
                _compare(base, logits, wanted[index, step], "one whose cache does not give what one pass gives")
    scored = completion_log_probs(base, bank, Mixing.of_rows(weights), lists, completions, lengths)
    _compare(base, scored.detach(), expected, "one whose completions cannot be scored behind prompts read once")
    got, _ = weighed_gradients(bank, population, lists, completions, lengths, torch.ones(4, 1))
    _compare(base, got[0], gradients, "one whose gradients depend on how rows are read")


def _tokens(base: BaseModel) -> tuple[list[Tensor], Tensor]:
    """Return the tokens of two prompts, each twice, and of a completion of each, `[4, STEPS]`."""
    size = base.model.get_input_embeddings().weight.shape[0]
    longest = min(LENGTHS[0], (base.context_tokens or 64) - STEPS)

    def some(count: int, start: int) -> Tensor:
        return torch.tensor([(start + 3 * place * place + place) % size for place in range(count)], device=base.device)

    pair = [some(max(1, longest), 1), some(max(1, min(LENGTHS[1], longest)), 2)]
    return pair * 2, torch.stack([some(STEPS, 3 + row) for row in range(4)])


def _randomise(bank: ExpertBank) -> None:
    """Give every layer a change about half as large as what it computes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in bank.layers.values():
            weight = getattr(layer.original, "weight", None)
            spread = float(weight.float().std()) if weight is not None and weight.is_floating_point() else 0.02
            down = torch.randn(layer.A.shape, generator=generator)
            up = torch.randn(layer.B.shape, generator=generator) * max(0.5 * spread, 1e-3)
            layer.A.copy_(down)
            layer.B.copy_(up)


def _plain(model: Any, ids: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def _decoded(reader: Reader, prompts: Sequence[Sequence[int]], completions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Feed completions token by token, letting every second row go; yield which rows are left and their logits."""
    index = torch.arange(4, device=completions.device)
    past, logits = reader.prefill(prompts, STEPS)
    yield index, logits
    for step in range(STEPS - 1):
        logits = reader.extend(past, completions[index, step])
        yield index, logits
        if step == 0:
            index = index[1::2]
            reader.take(past, index)


@contextmanager
def _in_order(bank: ExpertBank, rows: int, tokens: int) -> Iterator[None]:
    """Refuse a wrapped layer that sees something else than all rows, one after another."""

    def look(path: str, x: Tensor) -> None:
        if x.shape[0] != rows and (x.ndim != 2 or x.shape[0] != rows * tokens):
            raise _Unsound(f"one whose layer {path} does not see one row of a batch after another")

    hooks = [
        layer.register_forward_pre_hook(lambda _, args, path=path: look(path, args[0]))
        for path, layer in bank.layers.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _compare(base: BaseModel, got: Tensor, wanted: Tensor, otherwise: str) -> None:
    got, wanted = got.float(), wanted.float()
    if not bool(torch.isfinite(wanted).all()):
        raise _Unsound("one whose logits or gradients are not finite")
    off = (got - wanted).abs() / wanted.abs().max().clamp(min=1e-6)
    exact = base.dtype == torch.float32
    if not bool(off.max() <= CLOSE if exact else off.flatten(1).amax(dim=1).median() <= CLOSE_BF16):
        raise _Unsound(otherwise)
