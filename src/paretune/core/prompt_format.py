"""What a model reads for a prompt: the task's template, what the tokenizer adds, and what a prompt's text cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Protocol

from paretune.core.checks import check_text
from paretune.core.errors import ModelError

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
    ) -> None:
        """Wrap a tokenizer.

        Args:
            tokenize: Its ids for a text.
            special: Its special tokens and their ids; the one for what it does not know left out.
            vocabulary: Its tokens, read where a text cannot be encoded.
            piece: The token of an id.
        """
        self._tokenize, self._vocabulary, self.special, self.piece = tokenize, vocabulary, dict(special), piece
        self._special_ids = frozenset(special.values())
        ordered = sorted(map(re.escape, special), key=len, reverse=True)
        self._pattern = re.compile("|".join(ordered) or r"(?!)")
        self.ids = lru_cache(REMEMBERED)(self._ids)

    @classmethod
    def of(cls, tokenizer: Any, end_ids: tuple[int, ...] = ()) -> PromptEncoder:
        """Wrap a tokenizer of transformers.

        Args:
            tokenizer: The tokenizer.
            end_ids: Tokens that end a completion; where they were added to the vocabulary, they are special too.
        """
        added = tokenizer.added_tokens_decoder
        special = {str(each): index for index, each in added.items() if each.special or index in end_ids}
        special |= {each: tokenizer.convert_tokens_to_ids(each) for each in tokenizer.all_special_tokens}
        special.pop(tokenizer.unk_token, None)

        def tokenize(text: str, add: bool = False, as_text: bool = False) -> list[int]:
            options = {"split_special_tokens": True} if as_text else {}
            return list(tokenizer(text, add_special_tokens=add, verbose=False, **options)["input_ids"])

        return cls(tokenize, special, tokenizer.get_vocab, lambda index: str(tokenizer.convert_ids_to_tokens(index)))

    def _ids(self, prompt: str, prompt_format: PromptFormat) -> tuple[int, ...]:
        """Return the token ids that a model reads for a prompt.

        Raises:
            ShapeError: If it is no text.
            ModelError: If the tokenizer has no token for a part of it and none for what it does not know, or can read
                the text of a special token in no other way.
        """
        text = prompt_format.text(check_text("prompt", prompt))
        inside = self._encode(text)
        before: list[int] = []
        behind: list[int] = []
        if prompt_format.add_special_tokens is not False:
            as_text = self._count(inside) == len(inside)  # of special tokens alone, which of them is added is unknown
            bare = self._encode(text, as_text=True) if as_text else inside
            before, behind = _added(self._encode(text, add=True, as_text=as_text), bare)
        if not prompt_format.special_tokens_in_prompts:
            inside = self._prompt_as_text(prompt, prompt_format.template, inside)
        if prompt_format.add_special_tokens:
            return (*before, *inside, *behind)
        return tuple(inside if inside[: len(before)] == before else [*before, *inside])

    def held_by(self, prompt: str) -> list[str]:
        """Return the special tokens whose text is in a prompt."""
        return [found[0] for found in self._pattern.finditer(prompt)]

    def _encode(self, text: str, add: bool = False, as_text: bool = False) -> list[int]:
        try:
            return self._tokenize(text, add, as_text)
        except Exception as error:
            if type(error) is not Exception:  # tokenizers raises just that; anything else is no fault of the text
                raise
            known = sorted(self._vocabulary())
            sample = f"{' '.join(known[:12])}{' ...' if len(known) > 12 else ''}"
            raise ModelError(
                f"prompt must be text that the model's tokenizer can encode, got '{text[:60]}' in the task's template. "
                f"Write it with the {len(known):,} tokens that it knows: {sample}"
            ) from error

    def _count(self, ids: list[int]) -> int:
        return sum(index in self._special_ids for index in ids)

    def _prompt_as_text(self, prompt: str, template: str, ids: list[int]) -> list[int]:
        """Return the ids with no special token but those of the template."""
        wanted = self._count(self._encode(template.replace(FIELD, "")))
        if self._count(ids) == wanted:
            return ids
        texts: list[int] = []
        for run, special in self._runs(prompt, template):
            texts += self._encode(run, as_text=True) if run else []
            texts += [] if special is None else [special]
        if self._count(texts) != wanted:
            held = next(iter(self.held_by(prompt)), "one of them")
            raise ModelError(
                f"prompt must hold no special token that the tokenizer cannot read as plain text, got '{held}' in "
                f"'{prompt[:60]}'. Remove it, or set special_tokens_in_prompts: true in the task, if it is meant."
            )
        return texts

    def _runs(self, prompt: str, template: str) -> Iterator[tuple[str, int | None]]:
        """Yield each stretch of plain text, and the special token of the template that follows it."""
        run = ""
        for number, part in enumerate(template.split(FIELD)):
            run += prompt if number else ""
            start = 0
            for found in self._pattern.finditer(part):
                yield run + part[start : found.start()], self.special[found[0]]
                run, start = "", found.end()
            run += part[start:]
        yield run, None


def _added(whole: list[int], inside: list[int]) -> tuple[list[int], list[int]]:
    """Return what a tokenizer has added in front of the ids of a text, and behind them."""
    for start in range(len(whole) - len(inside) + 1):
        if whole[start : start + len(inside)] == inside:
            return whole[:start], whole[start + len(inside) :]
    raise ModelError(
        f"tokenizer must add its special tokens before or behind a text, got {whole[:8]} for the text {inside[:8]}. "
        "Set add_special_tokens: false in the task, and write the special tokens in its template."
    )
