"""What a model reads for a prompt: the task's template, what the tokenizer adds, and what a prompt's text cannot be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Protocol

from paretune.core.checks import check_text
from paretune.core.errors import ModelError
from paretune.core.printable import brief

FIELD = "{prompt}"
REMEMBERED = 2**16  # prompts whose ids are kept: checked, trained on and evaluated, each is encoded once


@dataclass(frozen=True)
class PromptFormat:
    """How a prompt becomes the model's input.

    Attributes:
        template: Text around it; `{prompt}` is replaced.
        add_special_tokens: None for what the tokenizer adds in front, such as a beginning-of-text token, unless the
            template begins with it; True for all that the tokenizer adds, False for nothing.
        special_tokens_in_prompts: Whether the text of a special token is that token in a prompt too. In a template it
            always is; in a prompt it is plain text, so that no prompt can end a turn or pass for the system.
    """

    template: str = FIELD
    add_special_tokens: bool | None = None
    special_tokens_in_prompts: bool = False

    def text(self, prompt: str) -> str:
        """Return the text that the model reads."""
        return self.template.replace(FIELD, prompt)

    def plain(self) -> dict[str, object]:
        """Return plain data for JSON and keys."""
        return asdict(self)


class Tokenize(Protocol):
    """A tokenizer: text in, ids out, with or without what it adds; special tokens in the text read as plain text."""

    def __call__(self, text: str, add: bool = False, as_text: bool = False) -> list[int]:
        """Return token ids."""
        ...


class PromptEncoder:
    """Encodes prompts as one tokenizer does."""

    def __init__(
        self,
        tokenize: Tokenize,
        special: Mapping[str, int],
        vocabulary: Callable[[], Mapping[str, int]],
        piece: Callable[[int], str],
        rows: int | None = None,
    ) -> None:
        """Wrap a tokenizer.

        Args:
            tokenize: Its ids for a text.
            special: Its special tokens and their ids; the one for what it does not know left out.
            vocabulary: Its tokens, read where a text cannot be encoded.
            piece: The token of an id.
            rows: Embeddings of the model; None where the model is not at hand.
        """
        self._rows = math.inf if rows is None else rows
        self._tokenize, self._vocabulary, self.special, self.piece = tokenize, vocabulary, dict(special), piece
        self._special_ids = frozenset(special.values())
        ordered = sorted(map(re.escape, special), key=len, reverse=True)
        self._pattern = re.compile("|".join(ordered) or r"(?!)")
        self.ids = lru_cache(REMEMBERED)(self._ids)

    @classmethod
    def of(cls, tokenizer: Any, end_ids: tuple[int, ...] = (), rows: int | None = None) -> PromptEncoder:
        """Wrap a tokenizer of transformers.

        Args:
            tokenizer: The tokenizer.
            end_ids: Tokens that end a completion; where they were added to the vocabulary, they are special too.
            rows: Embeddings of the model.

        Raises:
            ModelError: If it draws at random what it makes of a text, or confuses special tokens with others.
        """
        special = special_tokens(tokenizer, end_ids)
        check_repeatable(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None))

        def tokenize(text: str, add: bool = False, as_text: bool = False) -> list[int]:
            made = tokenizer(text, add_special_tokens=add, verbose=False, split_special_tokens=as_text)
            return list(made["input_ids"])

        pieces = tokenizer.convert_ids_to_tokens
        return cls(tokenize, special, tokenizer.get_vocab, lambda index: str(pieces(index)), rows)

    def _ids(self, prompt: str, prompt_format: PromptFormat) -> tuple[int, ...]:
        """Return the token ids that a model reads for a prompt.

        Raises:
            ShapeError: If it is no text.
            ModelError: If the tokenizer has no token for a part of it and none for what it does not know, or can read
                the text of a special token in no other way.
        """
        values = {"prompt": check_text("prompt", prompt)}
        adds, as_text = prompt_format.add_special_tokens, not prompt_format.special_tokens_in_prompts
        return tuple(self.fill(prompt_format.template, values, adds, as_text))

    def fill(self, template: str, values: Mapping[str, str], adds: bool | None, as_text: bool = True) -> list[int]:
        """Return the token ids of a template with its fields filled.

        Args:
            template: With `{name}` for the fields.
            values: A text for each name.
            adds: As `PromptFormat.add_special_tokens`.
            as_text: Whether the text of a special token in a value is plain text.

        Raises:
            ModelError: As `ids`.
        """
        fields = re.compile("|".join(re.escape(f"{{{name}}}") for name in values))
        text = fields.sub(lambda found: values[found[0][1:-1]], template)
        inside = self._encode(text)
        before: list[int] = []
        behind: list[int] = []
        if adds is not False:
            alone = self.count(inside) == len(inside)  # of special tokens alone, which of them is added is unknown
            bare = self._encode(text, as_text=True) if alone else inside
            before, behind = _added(self._encode(text, add=True, as_text=alone), bare)
        wanted = self.count(self._encode(fields.sub("", template)))
        if as_text and self.count(inside) != wanted:
            inside = self._values_as_text(template, fields, values, wanted)
        if adds:
            return [*before, *inside, *behind]
        return inside if inside[: len(before)] == before else [*before, *inside]

    def held_by(self, prompt: str) -> list[str]:
        """Return the special tokens whose text is in a prompt."""
        return [found[0] for found in self._pattern.finditer(prompt)]

    def _encode(self, text: str, add: bool = False, as_text: bool = False) -> list[int]:
        try:
            ids = self._tokenize(text, add, as_text)
        except Exception as error:
            if type(error) is not Exception:  # tokenizers raises just that; anything else is no fault of the text
                raise
            known = sorted(self._vocabulary())
            sample = f"{' '.join(known[:12])}{' ...' if len(known) > 12 else ''}"
            raise ModelError(
                f"prompt must be text that the model's tokenizer can encode, got '{text[:60]}' in the task's template. "
                f"Write it with the {len(known):,} tokens that it knows: {sample}"
            ) from error
        if max(ids, default=0) >= self._rows:
            raise ModelError(
                f"model must have an embedding for each token that its tokenizer makes, got {self._rows} of them and "
                f"{self.piece(max(ids))!r} as token {max(ids)} of '{text[:60]}'. Save the tokenizer that it was "
                "trained with."
            )
        return ids

    def count(self, ids: Sequence[int]) -> int:
        """Return how many of some ids are special tokens."""
        return sum(index in self._special_ids for index in ids)

    def _values_as_text(
        self, template: str, fields: re.Pattern[str], values: Mapping[str, str], wanted: int
    ) -> list[int]:
        """Return the ids of a filled template with no special tokens but the `wanted` ones of the template."""
        ids: list[int] = []
        for run, special in self._runs(template, fields, values):
            ids += self._encode(run, as_text=True) if run else []
            ids += [] if special is None else [special]
        if self.count(ids) != wanted:
            pieces = [self.piece(index) for index in ids if index in self._special_ids]
            said = [(each, found[0]) for each in values.values() if (found := self.held_by(each))]
            shown, held = next(iter(said), (" ".join(values.values()), ", ".join(pieces)))
            raise ModelError(
                f"prompt must hold no special token that the tokenizer cannot read as plain text, got '{held}' in "
                f"'{shown[:60]}'. Remove it, or set special_tokens_in_prompts: true in the task, if it is meant."
            )
        return ids

    def _runs(
        self, template: str, fields: re.Pattern[str], values: Mapping[str, str]
    ) -> Iterator[tuple[str, int | None]]:
        """Yield each stretch of plain text, and the special token of the template that follows it."""
        run, start = "", 0
        for found in re.finditer(f"{fields.pattern}|{self._pattern.pattern}", template):
            run, start = run + template[start : found.start()], found.end()
            if fields.fullmatch(found[0]):
                run += values[found[0][1:-1]]
            else:
                yield run, self.special[found[0]]
                run = ""
        yield run + template[start:], None


def special_tokens(tokenizer: Any, end_ids: Collection[int]) -> dict[str, int]:
    """Return the special tokens of a tokenizer of transformers and their ids; that for what it does not know left out.

    Args:
        tokenizer: The tokenizer.
        end_ids: Tokens that end a completion; where they were added to the vocabulary, they are special too.

    Raises:
        ModelError: If one has the id of another token.
    """
    added, vocabulary = tokenizer.added_tokens_decoder, tokenizer.get_vocab()
    special = {str(each): index for index, each in added.items() if each.special or index in end_ids}
    special |= {each: vocabulary[each] for each in tokenizer.all_special_tokens if each in vocabulary}
    by_id = {index: each for each, index in special.items()}
    shared = sorted(token for token, index in vocabulary.items() if index in by_id and token not in special)
    if shared:
        index = vocabulary[shared[0]]
        raise ModelError(
            f"tokenizer must have an id of its own for each special token, got {index} for "
            f"{brief(by_id[index])} and for {brief(shared[0])}. Correct its vocabulary, or its tokenizer_config.json."
        )
    special.pop(tokenizer.unk_token, None)
    return special


def check_repeatable(model: Any) -> None:
    """Refuse a tokenizer that draws at random what it makes of a text.

    Args:
        model: Of the `tokenizers` library, or None for a tokenizer of another.

    Raises:
        ModelError: If it does.
    """
    for name in ("dropout", "alpha"):
        if getattr(model, name, None):
            raise ModelError(
                f"tokenizer must read a text the same way each time, got {name} {getattr(model, name)} in its "
                f"tokenizer.json. Set it to null there."
            )


def _added(whole: list[int], inside: list[int]) -> tuple[list[int], list[int]]:
    """Return what a tokenizer has added in front of the ids of a text, and behind them."""
    for start in range(len(whole) - len(inside) + 1):
        if whole[start : start + len(inside)] == inside:
            return whole[:start], whole[start + len(inside) :]
    raise ModelError(
        f"tokenizer must add its special tokens before or behind a text, got {whole[:8]} for the text {inside[:8]}. "
        "Set add_special_tokens: false in the task, and write the special tokens in its template."
    )
