"""Empathy: the reply names a feeling that fits what the client said."""

from typing import Final

from paretune.core.checks import text_pairs
from paretune.objectives import lexicon

OWNED: Final = 0.6  # "you feel guilty"
NAMED: Final = 0.35  # "guilty", nobody's
LINKED: Final = 0.4  # further: what the feeling is about, as in "you feel ... about ..."
LINK_WORDS: Final = 3  # content words of the client that make a full link
VALIDATION: Final = 0.2  # "that sounds hard": acknowledged, but it would fit any statement
NEAR: Final = 0.5  # factor for a neighbouring family, and for statements that show no feeling we know
SPEAKER: Final = 0.25  # factor for "I feel guilty": the client's words, or the counsellor's own feeling


def empathy(prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
    """Score whether each reply names a feeling that fits the client's statement, as the client's, and says about what.

    In rising order: no feeling or a wrong one (0), general validation, the right feeling named, the right feeling given
    to the client, the same with what it is about in the client's words. Feelings of several families in one reply
    share its credit, so a list of feelings earns little; a denied feeling ("don't feel guilty") counts as none.

    Args:
        prompts: Client statements.
        completions: Replies.
        **columns: Further columns of the task, not read.

    Returns:
        One reward in [0, 1] a reply.

    Raises:
        ShapeError: If prompts and completions are not two lists of texts of one length.

    Source:
        The ladder follows the basic empathy formula of Egan, The Skilled Helper: "you feel ... because ...".

    Departures:
        Feelings are found by a lexicon of nine families, not by a trained rater; irony and rare words are missed.

    Example:
        >>> scores = empathy(["I keep lying to my wife, and I feel so guilty."] * 3,
        ...     ["You should stop.", "You feel ashamed.", "You feel ashamed about lying to your wife."])
        >>> [round(score, 2) for score in scores]
        [0.0, 0.6, 0.87]
    """
    return [_score(prompt, completion) for prompt, completion in text_pairs(prompts, completions)]


def _score(prompt: str, completion: str) -> float:
    listed = lexicon.words(completion)
    named = [feeling for feeling in lexicon.feelings(completion) if not feeling.negated]
    unrepeated = lexicon.distinct_share(listed)
    if not named:
        asks = any(lexicon.is_question(part) for part in lexicon.sentences(completion))
        return VALIDATION * unrepeated if lexicon.is_validation(completion) and not asks else 0.0
    shown = {feeling.family for feeling in lexicon.feelings(prompt, cues=True) if not feeling.negated}
    families = {feeling.family for feeling in named}
    fits = {family: _fit(family, shown) for family in families}
    focus = sum(fits.values()) / len(families) ** 2  # n families share, and each halves what the others mean
    focus /= max(1, len({feeling.phrase for feeling in named}) - 1)
    best = max(named, key=lambda feeling: (fits[feeling.family], lexicon.owned(feeling, listed)))
    base = OWNED if lexicon.owned(best, listed) else NAMED
    speaker = SPEAKER if lexicon.is_speakers(best, listed) else 1.0
    link = LINKED * (base / OWNED) * min(1.0, _shared_content(prompt, listed) / LINK_WORDS)
    return min(1.0, focus * speaker * unrepeated * (base + link))


def _fit(family: str, shown: set[str]) -> float:
    if family in shown:
        return 1.0
    return NEAR if not shown or shown & lexicon.NEIGHBOURS[family] else 0.0


def _shared_content(prompt: str, listed: list[str]) -> int:
    """Count the client's content words in the reply, feelings left out."""
    feeling_words = {
        word for phrases in lexicon.FEELING_WORDS.values() for phrase in phrases for word in phrase.split()
    }
    client = {lexicon.stem(word) for word in lexicon.words(prompt) if lexicon.is_content_word(word)}
    reply = {lexicon.stem(word) for word in listed if lexicon.is_content_word(word) and word not in feeling_words}
    return len(client & reply)
