"""Brevity: few words, but words."""

from typing import Final

from paretune.core.checks import text_pairs
from paretune.objectives import lexicon

SHORT_WORDS: Final = 4  # up to here a reply is as brief as it can usefully be
LONG_WORDS: Final = 20  # from here it is not brief at all: two clauses and a reason
LEAST_WORDS: Final = 3  # "I hear you.": below this little or nothing is said


def brevity(prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
    """Score how short each reply is: 1 for three or four words, falling in a straight line to 0 at 20.

    A reply must say something to be brief. One without a word scores 0; with fewer than three *distinct* words it
    scores a third for each, so that neither silence nor one word said three times is the best answer.

    Args:
        prompts: Client statements, not read.
        completions: Replies.
        **columns: Further columns of the task, not read.

    Returns:
        One reward in [0, 1] a reply.

    Raises:
        ShapeError: If prompts and completions are not two lists of texts of one length.

    Example:
        >>> brevity(["I can't sleep."] * 4, ["", "Hm.", "I hear you.", "one two three four five six seven"])
        [0.0, 0.3333333333333333, 1.0, 0.8125]
    """
    return [_score(lexicon.words(completion)) for _, completion in text_pairs(prompts, completions)]


def _score(listed: list[str]) -> float:
    said = min(1.0, len(set(listed)) / LEAST_WORDS)
    brief = (LONG_WORDS - len(listed)) / (LONG_WORDS - SHORT_WORDS)
    return said * min(1.0, max(0.0, brief))
