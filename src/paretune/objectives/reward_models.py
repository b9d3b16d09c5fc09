"""Reward models: a sequence classifier with one logit as an objective."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paretune.core.checks import text_pairs
from paretune.core.digests import model_digest
from paretune.core.errors import ModelError
from paretune.core.model_config import context_limit
from paretune.core.prompt_format import PromptEncoder
from paretune.core.task import Objective
from paretune.core.text_files import parsed_json

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_TEMPLATE = "{prompt}{completion}"
BATCH_TOKENS = 4096  # padded tokens of one forward pass: some hundred replies of a chat, little memory
_FIELD = re.compile(r"\{(prompt|completion)\}")


def fill_template(template: str, prompt: str, completion: str) -> str:
    r"""Put a prompt and a completion into a template, in one pass: braces inside them stay as they are.

    Example:
        >>> fill_template("Client: {prompt}\nCounselor:{completion}", "I {completion} it.", " Tell me.")
        'Client: I {completion} it.\nCounselor: Tell me.'
    """
    return _FIELD.sub(lambda match: prompt if match[1] == "prompt" else completion, template)


class RewardModel:
    """A sequence classifier that scores a prompt and a completion, called like a reward function.

    Computes in fp32, on a GPU when there is one. The tokenizer adds what it adds by itself (a BERT's `[CLS]`); any
    other special token, such as one for the end of a text, is read only where the template has it. A text longer than
    the model's context has no score.

    Args:
        model: Folder or hub id.
        template: How a row is read, with `{completion}` and, where wanted, `{prompt}`.
        transform: `sigmoid` for a reward in [0, 1], or `identity` for the logit.

    Raises:
        ModelError: If it cannot be loaded, is no classifier, or has more than one logit.
    """

    def __init__(
        self, model: str, template: str = DEFAULT_TEMPLATE, transform: Literal["sigmoid", "identity"] = "sigmoid"
    ) -> None:
        self.template = template
        self.transform = transform
        self._model, self._tokenizer = _load_once(model, model_digest(model))
        from paretune.models.whole import embedding_rows

        self._encoder = PromptEncoder.of(self._tokenizer, rows=embedding_rows(self._model))

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float | None]:
        """Score completions.

        Args:
            prompts: Prompts without the task's template.
            completions: Texts.
            **columns: Further columns of the task, not read.

        Returns:
            One reward a completion; None where the text is empty, longer than the model's context, or cannot be read
            without a special token that the template does not have.

        Raises:
            ShapeError: If prompts and completions are not two lists of texts of one length.
        """
        import torch

        rows = self._rows(text_pairs(prompts, completions))
        limit = context_limit(self._model.config.to_dict()) or max(map(len, rows), default=0)
        rewards: list[float | None] = [None] * len(rows)
        for batch in batches_by_length([len(row) for row in rows], limit):
            with torch.inference_mode():
                logits = self._logits([rows[index] for index in batch])
                scores = torch.sigmoid(logits) if self.transform == "sigmoid" else logits
            for index, score in zip(batch, scores.tolist(), strict=True):
                rewards[index] = score
        return rewards

    def _rows(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Return the ids of each text; those of a special token that only a text holds, and not the template, as text.

        A text that the tokenizer can read in no such way has no ids.
        """
        texts = [fill_template(self.template, *pair) for pair in pairs]
        rows: list[list[int]] = self._tokenizer(texts, verbose=False)["input_ids"] if texts else []
        wanted = self._encoder.count(self._tokenizer(fill_template(self.template, "", ""))["input_ids"])
        for index, row in enumerate(rows):
            if self._encoder.count(row) != wanted:
                with contextlib.suppress(ModelError):
                    values = dict(zip(("prompt", "completion"), pairs[index], strict=True))
                    rows[index] = self._encoder.fill(self.template, values, adds=True)
                    continue
                rows[index] = []
        return rows

    def _logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return one logit a row, `[B]`; rows are padded on the right."""
        import torch

        config = self._model.config.get_text_config()
        declared = getattr(config, "pad_token_id", None)
        pad = absent_id(rows, config.vocab_size) if declared is None else declared
        ids = torch.full((len(rows), max(map(len, rows))), pad)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        mask = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
        device = self._model.device
        config.pad_token_id = pad  # a decoder pools at the last token that is not this one, and refuses to have none
        try:
            logits: Tensor = self._model(input_ids=ids.to(device), attention_mask=mask.long().to(device)).logits
        finally:
            config.pad_token_id = declared
        return logits[:, 0]


def batches_by_length(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Group rows of similar length, so that little is padded; rows of no token or more than `limit` are left out.

    Example:
        >>> batches_by_length([3, 1, 0, 2], limit=2)
        [[1, 3]]
    """
    order = sorted((length, index) for index, length in enumerate(lengths) if 0 < length <= limit)
    batches: list[list[int]] = []
    for length, index in order:  # ascending: the newest row is the longest of its batch
        if not batches or (len(batches[-1]) + 1) * length > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches


def absent_id(rows: Sequence[Sequence[int]], vocabulary: int) -> int:
    """Return a token id that no row contains, to pad with where a model declares no padding token.

    Raises:
        ModelError: If every token of the vocabulary occurs.
    """
    used = {token for row in rows for token in row}
    free = next((token for token in range(vocabulary) if token not in used), None)
    if free is None:
        raise ModelError(
            f"reward model must declare pad_token_id, got none, and every one of its {vocabulary} tokens occurs in a "
            "batch. Set pad_token_id in its config.json."
        )
    return free


def load_reward_model(objective: Objective) -> RewardModel:
    """Load the reward model of an objective; the same model is loaded once per process.

    Raises:
        ModelError: If it cannot be loaded, is no classifier, or has more than one logit.
    """
    return RewardModel(objective.reward, objective.template or DEFAULT_TEMPLATE, objective.transform)


def check_one_logit(model: str) -> None:
    """Read from a folder's configuration whether it is a classifier with one logit; a hub id is checked when loaded.

    Raises:
        ModelError: If it is not.
    """
    file = Path(model) / "config.json"
    if not file.is_file():
        return
    config = parsed_json(file.read_text(encoding="utf-8"))
    kinds = config.get("architectures") or []
    if kinds and not any("SequenceClassification" in kind for kind in kinds):
        raise _no_classifier(model, ", ".join(kinds))
    logits = config.get("num_labels", len(config.get("id2label") or {"LABEL_0": 0, "LABEL_1": 1}))
    if logits != 1:  # transformers writes id2label unless there are two labels
        raise _many_logits(model, logits)


@functools.lru_cache(maxsize=8)
def _load_once(model: str, digest: str) -> tuple[Any, Any]:
    del digest  # only there to load again when a file changed
    import torch
    from transformers import AutoModelForSequenceClassification

    from paretune.models.whole import load_whole

    check_one_logit(model)
    kind = "sequence classifier"
    classifier, tokenizer = load_whole(AutoModelForSequenceClassification, model, torch.float32, "reward model", kind)
    if classifier.config.num_labels != 1:
        raise _many_logits(model, classifier.config.num_labels)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return classifier.to(device).eval(), tokenizer


def _many_logits(model: str, logits: int) -> ModelError:
    return ModelError(
        f"reward model must have one logit, got {logits} in '{model}'. Train it with num_labels=1, or write a reward "
        "function that picks one of them."
    )


def _no_classifier(model: str, got: str) -> ModelError:
    return ModelError(
        f"reward model must be a trained sequence classifier, got {got} in '{model}'. Name the folder that "
        "AutoModelForSequenceClassification was saved to."
    )
