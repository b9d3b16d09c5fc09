"""Rewards of the PAIR study: empathy and brevity to train on, fluency to look at afterwards.

Plain rules that can be read in five minutes, no models of their own. Each takes prompts and completions as TRL passes
them and returns one reward in [0, 1] for each completion. What all three refuse to reward: silence, words said again
and again, lists of words that are no sentence. Empathy and brevity refuse copies of the client's words, too.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

Spelling: TypeAlias = Callable[[str], float]  # the probability of one item on its own

INNER_LIFE: Final = frozenset(
    """
    feel feels feeling felt afraid alone angry annoyed anxious ashamed concern concerned concerns confident confused
    conflicted depressed disappointed discouraged embarrassed excited exhausted fear fed frustrated frustrating glad
    guilty happy helpless hope hopeful hopeless hoping hurt hurts lonely lost love mad matters miss motivated nervous
    overwhelmed overwhelming pain pressure proud ready relieved resent sad safe scared scary skeptical stressed stress
    struggle struggling stuck suffering tempted terrified tired torn trapped unhappy unsure upset upsetting value want
    wants wanted willing wish worried worries worry care cares caring enjoy enjoyed dislike hate important hard tough
    difficult doubt doubtful rather like prefer unfair furious shocked disturbing defeated discouraging unprepared
    regret remorse guilt grateful relief comfortable uncomfortable
    """.split()
)
"""Words for what goes on inside a person: feelings, wishes, worries, what is hard and what matters."""
UNLIKE: Final = frozenset("looks sounds seems something feels just people much".split())  # "like" after these compares

FUNCTION_WORDS: Final = frozenset(
    """
    a about after all also am an and any are aren't as at be because been before being both but by can can't could
    couldn't did didn't do does doesn't doing don't even for from get gets getting got had has hasn't have haven't
    having he he's her here hers him his how i i'd i'll i'm i've if in into is isn't it it's its just know let lot lots
    make makes many may maybe me might more most much my myself no not now of off on one only or other our out over own
    put really right say says see seem seems she she's should so some something sound sounds still such take than that
    that's the their them then there there's these they they're thing things think this those though through to too try
    trying up us very was wasn't way we we're well were what when where which while who why will with without won't
    would wouldn't yes yet you you'd you'll you're you've your yours yourself
    """.split()
)
YOU: Final = frozenset("you you're you've you'd you'll your yours yourself".split())

TELLS_WHAT_TO_DO: Final = re.compile(
    r"\b(you (really |just )?(should|shouldn't|must|ought|better|need to|have to)|you'd better|why (don't|not|can't)"
    r"|have you (tried|considered|thought)|if i were you|i (would |'d )?(suggest|recommend|advise)|my advice"
    r"|(shame on|your (own )?fault|stop (it|being|complaining|making)|get over|grow up))\b"
    r"|(^|[.!?] +)(just |please |then |maybe )*(try|stop|start|don't|go|make|talk|ask|tell|remember|consider|quit|keep"
    r"|think|use|eat|take|find|get)\b"
)
"""Advice, orders and blame: the counsellor's view of the matter, not the client's."""

YOURS: Final = 1.0  # what is felt is given to the client: "you feel trapped"
NOBODYS: Final = 0.4  # it is only mentioned: "that is hard"
WINDOW: Final = 4  # words after "you" in which it counts as the client's: "you're not quite sure, worried"
MOST_INNER_WORDS: Final = 3  # more of them share what three earn: a list says little
UNGROUNDED: Final = 0.3  # for a reply that would fit any client
GROUNDING_WORDS: Final = 2  # content words of the client that make a reply his or hers
TOLD: Final = 0.25  # factor for replies that tell the client what to do, or whose fault it is
ASKED: Final = 0.5  # factor for replies that ask: the client's perspective is asked for, not taken

BRIEF_WORDS: Final = 8  # as brief as a reflection usefully is: the median of PAIR's simple ones is 9
LONG_WORDS: Final = 30  # not brief at all; three quarters of PAIR's complex ones are shorter
LEAST_WORDS: Final = 5  # different words below which little is said: "You want to be healthy"

FUNCTION_SHARE: Final = 0.3  # of the words; nine in ten of PAIR's own replies have more, a list of keywords has none
COPIED_RUN: Final = 4  # words in a row that are also in a row in the prompt; a turned "I" breaks it
COPIES_ALLOWED: Final = 0.5  # share of the reply in such runs up to which it still is the counsellor's

FLUENCY_TEXTS: Final = Path(__file__).with_name("fluency_texts.json")  # {"train": [text], "dev": [text]}, from run.py


def empathy(prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
    """Score whether each reply takes the client's perspective on this client's matter, without telling what to do.

    Four factors: a word for an inner state, as the client's ("you feel", "you'd like"), or only mentioned; two content
    words of the client beside it; no question, advice, order or blame; and a sentence that is not a copy.

    Returns:
        One reward in [0, 1] a reply. It finds words, not meaning: a feeling that does not fit is not noticed.
    """
    return [_empathy(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]


def brevity(prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
    """Score how short each reply is: 1 up to 8 words, falling in a straight line to 0 at 30.

    A reply has to say something to be brief: it needs five different words, a sentence, and words of its own.

    Returns:
        One reward in [0, 1] a reply.
    """
    return [_brevity(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]


def fluency(prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
    """Score how usual each reply's word order is in PAIR's training text, all of it. For audits, not for training.

    The mean log-probability per token under `NGrams`, from that of development replies with shuffled words (0) to that
    of the most usual tenth of development replies (1), times the share of word pairs that are not said again. The
    prompt is not read.

    Returns:
        One reward in [0, 1] a reply.
    """
    judge, low, high = _judge()
    return [_fluency(judge, low, high, completion) for _, completion in zip(prompts, completions, strict=True)]


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, whatever its capitals and quotation marks.

    Example:
        >>> words("You’re  TIRED, and it's late!")
        ["you're", 'tired', 'and', "it's", 'late']
    """
    return re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower().replace("’", "'"))


def _empathy(prompt: str, completion: str) -> float:
    said = words(completion)
    inner = [place for place, word in enumerate(said) if word in INNER_LIFE and not _compares(said, place)]
    if not inner:
        return 0.0
    owned = any(YOU & set(said[max(0, place - WINDOW) : place]) for place in inner)
    crowded = min(1.0, MOST_INNER_WORDS / len(inner))
    grounded = min(1.0, len(_content(prompt) & _content(completion)) / GROUNDING_WORDS)
    plain = " ".join(completion.lower().replace("’", "'").split())
    turned = TOLD if TELLS_WHAT_TO_DO.search(plain) else ASKED if "?" in plain else 1.0
    named = (YOURS if owned else NOBODYS) * crowded
    return named * (UNGROUNDED + (1 - UNGROUNDED) * grounded) * turned * _honest(prompt, completion)


def _brevity(prompt: str, completion: str) -> float:
    said = words(completion)
    brief = min(1.0, max(0.0, (LONG_WORDS - len(said)) / (LONG_WORDS - BRIEF_WORDS)))
    return brief * min(1.0, len(set(said)) / LEAST_WORDS) * _honest(prompt, completion)


def _fluency(judge: NGrams, low: float, high: float, completion: str) -> float:
    said = words(completion)
    if not said:
        return 0.0
    share = (judge.mean_log_probability(completion) - low) / (high - low)
    return min(1.0, max(0.0, share)) * _distinct(list(zip(["", *said], said)))


def _honest(prompt: str, completion: str) -> float:
    """Return 1 for a sentence in words of its own, down to 0 for repetition, a list of keywords or a copy."""
    said, heard = words(completion), words(prompt)
    if not said:
        return 0.0
    sentence = min(1.0, sum(word in FUNCTION_WORDS for word in said) / len(said) / FUNCTION_SHARE)
    runs = {tuple(heard[start : start + COPIED_RUN]) for start in range(len(heard) - COPIED_RUN + 1)}
    copied: set[int] = set()
    for start in range(len(said) - COPIED_RUN + 1):
        if tuple(said[start : start + COPIED_RUN]) in runs:
            copied.update(range(start, start + COPIED_RUN))
    own = min(1.0, (1 - len(copied) / len(said)) / (1 - COPIES_ALLOWED))
    return sentence * own * _distinct(said)


def _distinct(items: Sequence[object]) -> float:
    """Return the share of items that are not repeats, 1 up to the repeats that a long sentence needs."""
    return min(1.0, len(set(items)) / len(items) / 0.7)


def _compares(said: list[str], place: int) -> bool:
    return said[place] == "like" and place > 0 and said[place - 1] in UNLIKE


def _content(text: str) -> set[str]:
    """Return the stems of the words a text is about."""
    return {_stem(word) for word in words(text) if word not in FUNCTION_WORDS and word not in INNER_LIFE}


def _stem(word: str) -> str:
    """Cut the endings that separate "smoke", "smoking" and "smoked"."""
    for ending in ("ings", "ing", "ed", "es", "er", "ers", "s", "e", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


class NGrams:
    """A trigram model of words and marks over a character model that can spell any word, smoothed as Witten and Bell.

    Args:
        texts: What it learns from.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        sentences = [self.tokens(text) for text in texts]
        self._phrases = _Counts(3, sentences)
        self._spelling = _Counts(4, [[*token, "\n"] for token in {each for tokens in sentences for each in tokens}])

    @staticmethod
    def tokens(text: str) -> list[str]:
        """Return words, marks and the end."""
        found = re.findall(r"[a-z]+(?:'[a-z]+)*|\d+|[^\w\s]", text.lower().replace("’", "'"))
        return [*found, "</s>"]

    def mean_log_probability(self, text: str) -> float:
        """Return the mean log-probability per token, the end included, in nats."""
        tokens = self.tokens(text)
        return sum(map(math.log, self._phrases.probabilities(tokens, self._spell))) / len(tokens)

    def _spell(self, token: str) -> float:
        return math.prod(self._spelling.probabilities([*token, "\n"], lambda character: 1 / 64))


class _Counts:
    """N-gram counts: an order's probability is interpolated with that of the next lower one."""

    def __init__(self, order: int, sequences: Iterable[Sequence[str]]) -> None:
        self.order = order
        self._seen: dict[tuple[str, ...], Counter[str]] = {}
        for sequence in sequences:
            for history, item in self._places(sequence):
                for start in range(order):
                    self._seen.setdefault(history[start:], Counter())[item] += 1
        self._totals = {history: sum(counts.values()) for history, counts in self._seen.items()}

    def probabilities(self, sequence: Sequence[str], lowest: Spelling) -> list[float]:
        """Return the probability of each item after those before it."""
        return [self._probability(item, history, lowest) for history, item in self._places(sequence)]

    def _places(self, sequence: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
        padded = ["<s>"] * (self.order - 1) + list(sequence)
        return [(tuple(padded[place : place + self.order - 1]), item) for place, item in enumerate(sequence)]

    def _probability(self, item: str, history: tuple[str, ...], lowest: Spelling) -> float:
        probability = lowest(item)
        for start in range(len(history), -1, -1):  # from no history to the whole
            counts = self._seen.get(history[start:])
            if counts is not None:
                total = self._totals[history[start:]]
                probability = (counts[item] + len(counts) * probability) / (total + len(counts))
        return probability


@cache
def _judge() -> tuple[NGrams, float, float]:
    """Train the judge on the training texts; place 0 and 1 by the development replies."""
    texts = json.loads(FLUENCY_TEXTS.read_text(encoding="utf-8"))
    judge, source = NGrams(texts["train"]), random.Random(0)
    shuffled = [" ".join(source.sample(words(text), len(words(text)))) for text in texts["dev"]]
    low = [judge.mean_log_probability(text) for text in shuffled]
    high = sorted(judge.mean_log_probability(text) for text in texts["dev"])
    return judge, sum(low) / len(low), high[int(0.9 * len(high))]
