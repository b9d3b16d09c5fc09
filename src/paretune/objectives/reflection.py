"""Reflection: the reply gives the client's content back, turned to the client, and adds what it means."""

from itertools import pairwise
from typing import Final

from paretune.core.checks import text_pairs
from paretune.objectives import lexicon

ECHO_WORDS: Final = 5  # content words of the client that make a full echo; fewer where the statement has fewer
LOOSE_WORD: Final = 0.2  # credit for a client's word out of its context, as in a heap of keywords
ECHO: Final = 0.5  # the share of the score that saying it back can earn ...
DEPTH: Final = 0.5  # ... and the share that adding feeling and meaning can
ADDED: Final = 0.5  # depth of a fitting feeling, or of a meaning, that the client had not put into words
RESTATED: Final = 0.2  # depth of a feeling or reason said back in the client's words
UNADDRESSED: Final = 0.3  # factor for a reply that names neither you nor your


def reflection(prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
    """Score how well each reply reflects the client's statement.

    A sentence counts if it neither asks nor advises. Its echo is the client's content, in the client's order, with the
    person turned; a simple reflection echoes and earns up to a half. A complex one also names a fitting feeling or what
    the client wants, misses or values, and earns up to one. Copying the statement keeps *I* and *my*, so it earns
    little; keywords out of context earn a fifth each of what they earn in place.

    Args:
        prompts: Client statements.
        completions: Replies.
        **columns: Further columns of the task, not read.

    Returns:
        One reward in [0, 1] a reply.

    Raises:
        ShapeError: If prompts and completions are not two lists of texts of one length.

    Source:
        Simple and complex reflections as in Miller and Rollnick, Motivational Interviewing.

    Departures:
        Meaning is recognised by word overlap and a lexicon; a paraphrase in entirely new words counts as no echo.

    Example:
        >>> statement = ["I keep arguing with my wife about the rent."] * 3
        >>> scores = reflection(statement, ["Call her.", "You keep arguing with your wife.",
        ...     "Arguing with your wife about the rent leaves you worn out, and you want some peace."])
        >>> [round(score, 2) for score in scores]
        [0.0, 0.33, 1.0]
    """
    return [_score(prompt, completion) for prompt, completion in text_pairs(prompts, completions)]


def _score(prompt: str, completion: str) -> float:
    client = lexicon.turn_person(prompt)
    parts = lexicon.sentences(completion)
    kept = [part for part in parts if not lexicon.is_question(part) and not lexicon.is_advice(part, client)]
    reply = " ".join(kept)
    listed = lexicon.words(reply)
    if not listed:
        return 0.0
    stated_share = len(listed) / len(lexicon.words(completion))
    echo = _echo(prompt, listed)
    depth = min(1.0, echo / 0.5) * _depth(prompt, reply)  # meaning added to nothing the client said is not a reflection
    return stated_share * _turned(listed) * lexicon.distinct_share(listed) * (ECHO * echo + DEPTH * depth)


def _echo(prompt: str, listed: list[str]) -> float:
    """Share of the client's content in the reply, in full where a neighbouring word came along."""
    client = [lexicon.stem(word) for word in lexicon.words(lexicon.turn_person(prompt))]
    content = {lexicon.stem(word) for word in lexicon.words(prompt) if lexicon.is_content_word(word)}
    neighbours = set(pairwise(client))
    reply = [lexicon.stem(word) for word in listed]
    in_place = {word for pair in pairwise(reply) if pair in neighbours for word in pair} & content
    loose = (set(reply) & content) - in_place
    return min(1.0, (len(in_place) + LOOSE_WORD * len(loose)) / max(1, min(ECHO_WORDS, len(content))))


def _depth(prompt: str, reply: str) -> float:
    """How much feeling and meaning a reply adds: half each."""
    shown = {feeling.family for feeling in lexicon.feelings(prompt, cues=True) if not feeling.negated}
    named = [feeling for feeling in lexicon.feelings(reply) if not feeling.negated]
    fitting = [feeling for feeling in named if feeling.family in shown or not shown]
    client = " ".join(lexicon.words(lexicon.turn_person(prompt)))
    feeling_depth = max((RESTATED if feeling.phrase in client else ADDED for feeling in fitting), default=0.0)
    feeling_depth /= max(1, len({feeling.family for feeling in named}))
    meaning_depth = RESTATED if lexicon.has_reason(reply) else 0.0
    if any(phrase not in client for phrase in lexicon.meaning_phrases(reply)):
        meaning_depth = ADDED
    return feeling_depth + meaning_depth


def _turned(listed: list[str]) -> float:
    """Share of the reply's personal words that mean the client."""
    first = sum(word in lexicon.FIRST_PERSON for word in listed)
    if listed[:2] in (["i", "hear"], ["i", "sense"], ["i", "understand"]):
        first -= 1  # "I hear that you ..." speaks of the client
    second = sum(word in lexicon.SECOND_PERSON for word in listed)
    return second / (first + second) if first + second else UNADDRESSED
