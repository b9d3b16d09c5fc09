"""The words the text objectives know: feelings, person turning, content words, questions, advice, meaning.

Everything here is a pure function of text. An objective sees a client statement and a reply and nothing else, so any
statement can be scored, not only those of the embedded task.
"""

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Final

FEELING_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "fear": ("afraid", "anxious", "worried", "scared", "nervous", "frightened", "uneasy", "on edge"),
    "sadness": ("sad", "heartbroken", "miserable", "tearful", "gloomy", "down", "low"),
    "anger": ("angry", "frustrated", "furious", "annoyed", "resentful", "irritated", "mad"),
    "guilt": ("guilty", "ashamed", "embarrassed", "remorseful", "regretful", "at fault"),
    "loneliness": ("lonely", "isolated", "left out", "cut off", "invisible", "alone"),
    "exhaustion": ("exhausted", "tired", "worn out", "drained", "overwhelmed", "burned out", "weary"),
    "hurt": ("hurt", "betrayed", "let down", "rejected", "disappointed", "wounded", "unappreciated"),
    "confusion": ("torn", "confused", "lost", "stuck", "unsure", "conflicted", "uncertain"),
    "joy": ("proud", "relieved", "hopeful", "happy", "excited", "glad", "thankful"),
}
"""Feeling family -> words and short phrases that name it, in a counsellor's mouth or a client's."""

FEELING_CUES: Final[dict[str, tuple[str, ...]]] = {
    "fear": (
        "my heart races",
        "my stomach is in knots",
        "my hands shake",
        "i panic",
        "i keep expecting the worst",
        "fear",
        "dread",
        "anxiety",
        "panic",
        "worry",
        "worrying",
        "terrified",
        "stressed",
    ),
    "sadness": (
        "i cry most days",
        "i could cry",
        "nothing feels worth it",
        "my heart is heavy",
        "crying",
        "grief",
        "grieving",
        "sadness",
        "depressed",
        "hopeless",
        "unhappy",
    ),
    "anger": (
        "i want to scream",
        "my blood boils",
        "i could throw something",
        "i slam doors",
        "anger",
        "rage",
        "fed up",
        "hate",
    ),
    "guilt": (
        "i can't look anyone in the eye",
        "it's all my fault",
        "i can't forgive myself",
        "i should know better",
        "my fault",
        "guilt",
        "shame",
        "regret",
    ),
    "loneliness": (
        "nobody calls me",
        "i have no one to talk to",
        "nobody would notice",
        "the silence is loud",
        "loneliness",
        "no friends",
        "by myself all day",
    ),
    "exhaustion": (
        "i can barely get up",
        "i have nothing left to give",
        "my body aches",
        "i could sleep for a year",
        "burnout",
        "too much for me",
        "exhausting",
        "can't cope",
    ),
    "hurt": (
        "it still stings",
        "it cut me deep",
        "i trusted too much",
        "that broke something in me",
        "painful",
        "cheated on",
        "heartless",
    ),
    "confusion": (
        "i don't know what to do",
        "i go back and forth",
        "nothing makes sense",
        "my head is spinning",
        "i can't decide",
        "no idea",
        "don't know",
    ),
    "joy": (
        "i can't stop smiling",
        "i feel lighter",
        "i'm sleeping again",
        "it feels like a fresh start",
        "joy",
        "pride",
        "relief",
        "grateful",
    ),
}
"""Feeling family -> what a client says that implies it without naming it. Read in the statement, not in the reply."""

NEIGHBOURS: Final[dict[str, frozenset[str]]] = {
    "fear": frozenset({"confusion", "exhaustion"}),
    "sadness": frozenset({"loneliness", "hurt"}),
    "anger": frozenset({"hurt"}),
    "guilt": frozenset(),
    "loneliness": frozenset({"sadness"}),
    "exhaustion": frozenset({"fear"}),
    "hurt": frozenset({"anger", "sadness"}),
    "confusion": frozenset({"fear"}),
    "joy": frozenset(),
}
"""Families close enough that naming one for the other is a near miss."""

_TURN: Final[dict[str, str]] = dict(
    turn.split(">")  # said by one, and said back by the other
    for turn in """
    i>you i'm>you're i've>you've i'd>you'd i'll>you'll me>you my>your mine>yours myself>yourself am>are we>you
    we're>you're we've>you've we'd>you'd we'll>you'll us>you our>your ours>yours ourselves>yourselves
    """.split()
)
FIRST_PERSON: Final[frozenset[str]] = frozenset(_TURN) - {"am"}
SECOND_PERSON: Final[frozenset[str]] = frozenset(_TURN.values()) - {"are"}

_FUNCTION_WORDS: Final[frozenset[str]] = frozenset(
    """
    a about after again all always am an and any are aren't as at be because been before being but by can can't could
    did didn't do does doesn't don't down each even ever every feel feeling feels few for from get gets getting go goes
    going had has have having he he's her here hers him his how i i'd i'll i'm i've if in into is isn't it it's its just
    keep keeps kept last lately like made make makes many me more most much my myself never no not now of off oh on once
    one only or other our out over own quite really same say says she she's should since so some still such than that
    that's the their them then there these they they're this those though through to too until up us very was we we're
    well were what when where which while who why will with without would yet you you'd you'll you're you've your yours
    yourself find found end ended spend spent stop stopped finally days day time week weeks month months
    """.split()
)

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_WH_QUESTION = re.compile(
    r"^(and |so |but )?(what|how|why|who|where|which|when) "
    r"(\w+ )?(is|are|was|were|do|does|did|can|could|would|will|has|have|makes|made|happens|happened|helps|keeps) "
)
_YES_NO_QUESTION = re.compile(
    r"^(and |so |but )?(do|does|did|are|is|was|were|can|could|would|will|have|has|had|shall|should) "
    r"(you|it|that|there|this|she|he|they|we|i) "
)
_ADVICE = re.compile(
    r"\b(you|she|he|they|one|we)( really| just)? (should|shouldn't|ought"
    r"|must (?!(be|feel|have|leave|hurt)\b)|could try)"
    r"|\byou(('d| had) better|('ll)?( just| really)? (have|need) to|'ve got to)\b"
    r"|\bif i were you\b|\bi (would|'d) (just )?(try|stop|start|go|call|talk|make|take|suggest|recommend)\b"
    r"|\bi'd (try|stop|start|go|call|talk|make|take|suggest|recommend|advise)\b"
    r"|\b(have|'ve) you (tried|thought|considered)\b"
    r"|\bwhy (don't|not) (you|just|try)\b|\bmy advice\b|\bi (suggest|recommend|advise)\b|\bhow about\b|\bwhat about\b"
    r"|^(please |just |maybe |perhaps |then |first |next time )*"
    r"(try|stop|start|don't|do not|never|always|go|make|take|write"
    r"|call|talk|get|give|ask|tell|let|set|put|find|forget|remember|consider|be|think|see|use|keep)\b"
)
_MEANING = re.compile(
    r"\b(part of you|matters to you|it matters|means a lot to you|you('re| are)? (want|wanting|wish|wishing|hope|hoping"
    r"|miss|need (?!to\b)|long|longing|value|care)|you('d| would) (like|love|rather)|deep down|underneath"
    r"|what you (want|need|miss)|important to you)\b"
)
_REASON = re.compile(r"\b(because|since|so that|in order to|which is why)\b")
_OWNERSHIP: Final[frozenset[str]] = frozenset(
    """you you're you've your that's it's sounds sound sounded seem seems feels leaves leave left makes must""".split()
)
_GENERIC_VALIDATION = re.compile(
    r"\b((that|it|this)( must| can)?( really)? (sounds?|is|be|feels?|seems?)( like)?( been)?"
    r"( so| very| really| a| quite)*"
    r" (hard|tough|difficult|a lot|heavy|rough|painful)|(that|it|this)'s( so| very| really| a| quite)*"
    r" (hard|tough|difficult|a lot|heavy|rough|painful)|(that|it) makes sense|i hear you|i can hear|i understand"
    r"|no wonder|that's understandable|anyone would)\b"
)


@dataclass(frozen=True)
class NamedFeeling:
    """One feeling found in a text: its family, the phrase, and where its first word stands."""

    family: str
    phrase: str
    position: int
    negated: bool


def words(text: str) -> list[str]:
    """Split a text into lower-case words; digits, punctuation and symbols are no words.

    Example:
        >>> words("I'm tired -- so TIRED!")
        ["i'm", 'tired', 'so', 'tired']
    """
    return _WORD.findall(text.lower().replace("’", "'"))


def sentences(text: str) -> list[str]:
    """Split a text at full stops, question marks, exclamation marks and line breaks; keep only parts with a word."""
    return [part.strip() for part in _SENTENCE.findall(text) if words(part)]


def turn_person(text: str) -> str:
    """Say a first-person text to the person who said it: I becomes you, my becomes your.

    Example:
        >>> turn_person("I keep putting off calling my sister.")
        'You keep putting off calling your sister.'
    """

    def turn(match: re.Match[str]) -> str:
        word = match.group(0)
        turned = _TURN.get(word.lower())
        if turned is None:
            return word
        starts_sentence = re.search(r"(^|[.!?]\s+)$", text[: match.start()]) is not None
        return turned.capitalize() if starts_sentence else turned

    text = re.sub(
        r"\b(i|we) (was|am)\b", lambda m: m.group(1) + " " + ("were", "are")[m.group(2) == "am"], text, flags=re.I
    )
    return _WORD.sub(turn, text.replace("’", "'"))


@cache
def stem(word: str) -> str:
    """Cut the commonest endings off a word, so that *calls*, *called* and *calling* are one.

    Example:
        >>> {stem(word) for word in ("call", "calls", "called", "calling")}
        {'call'}
    """
    word = word.removesuffix("'s")
    for ending in ("ing", "ied", "ies", "ed", "es", "s"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= 3 and not word.endswith("ss"):
            if ending in ("ied", "ies"):
                return rest + "y"
            if len(rest) > 3 and rest[-1] == rest[-2] and rest[-1] not in "aeiouls":
                rest = rest[:-1]
            return rest.removesuffix("e") if len(rest) > 3 else rest
    return word.removesuffix("e") if len(word) > 3 else word


def is_content_word(word: str) -> bool:
    """Tell whether a lower-case word carries content: neither grammar nor person nor said by everybody."""
    return len(word) > 2 and word not in _FUNCTION_WORDS and word not in _TURN and not word.endswith("n't")


@cache
def _feeling_pattern(with_cues: bool) -> tuple[re.Pattern[str], dict[str, str]]:
    families: dict[str, str] = {}
    for table in (FEELING_CUES, FEELING_WORDS) if with_cues else (FEELING_WORDS,):
        for family, phrases in table.items():
            families.update(dict.fromkeys(phrases, family))
    longest_first = sorted(families, key=lambda phrase: (-len(phrase), phrase))
    return re.compile(r"(?<![\w'])(" + "|".join(map(re.escape, longest_first)) + r")(?![\w'])"), families


def feelings(text: str, cues: bool = False) -> list[NamedFeeling]:
    """Find the feelings a text names, in order, each marked when a *not* stands before it.

    Args:
        text: Any text.
        cues: Also find phrases that imply a feeling without naming it, as clients do.

    Example:
        >>> [(f.family, f.negated) for f in feelings("I'm not angry, just worn out.")]
        [('anger', True), ('exhaustion', False)]
    """
    pattern, families = _feeling_pattern(cues)
    found: list[NamedFeeling] = []
    start = 0
    for clause in re.split(r"[.,;:!?\n]|\bbut\b|\bjust\b", text.lower().replace("’", "'")):
        listed = words(clause)
        joined = " ".join(listed)
        for match in pattern.finditer(joined):
            position = len(joined[: match.start()].split())
            if _is_literal(match.group(1), listed, position):
                continue
            before = listed[max(0, position - 4) : position]
            negated = any(
                w in {"not", "never", "no", "without", "hardly"} or (w[-3:] == "n't" and w != "can't") for w in before
            )
            found.append(NamedFeeling(families[match.group(1)], match.group(1), start + position, negated))
        start += len(listed)
    return found


def _is_literal(phrase: str, listed: list[str], position: int) -> bool:
    """Tell a feeling word from its everyday twin: *lost my job*, *sat down*, *let me down*, *low on money*."""
    before = listed[position - 1] if position else ""
    after = listed[position + 1] if position + 1 < len(listed) else ""
    if phrase in {"lost", "hurt"}:
        return after in {"my", "your", "his", "her", "the", "our", "a", "touch", "me", "him", "them"}
    if phrase in {"down", "low", "mad", "torn", "stuck"}:
        return bool(before) and before not in _LINKING
    return phrase in {"hate"} and after == "to"


_LINKING: Final[frozenset[str]] = frozenset(
    """feel feels feeling felt am is are be was were i'm you're it's that's so very really pretty quite sound sounds
    seem seems me you makes leaves get getting too and or rather a bit""".split()
)


def owned(feeling: NamedFeeling, listed: list[str]) -> bool:
    """Tell whether a reply gives a feeling to the client: *you feel lonely*, *that sounds lonely*.

    Args:
        feeling: A feeling found in the reply.
        listed: All words of the reply.
    """
    before = listed[max(0, feeling.position - 4) : feeling.position]
    return any(word in _OWNERSHIP for word in before) and not is_speakers(feeling, listed)


def is_speakers(feeling: NamedFeeling, listed: list[str]) -> bool:
    """Tell whether the nearest personal word before a feeling is the speaker's: *I feel lonely*, *it makes me sad*."""
    before = listed[max(0, feeling.position - 3) : feeling.position]
    nearest = next((word for word in reversed(before) if word in FIRST_PERSON or word in SECOND_PERSON), "")
    return nearest in FIRST_PERSON


def is_question(sentence: str) -> bool:
    """Tell whether a sentence asks, with or without its question mark."""
    plain = " ".join(words(sentence)) + " "
    return "?" in sentence or bool(_WH_QUESTION.search(plain)) or bool(_YES_NO_QUESTION.search(plain))


def is_advice(sentence: str, client: str = "") -> bool:
    """Tell whether a sentence tells the client what to do.

    Args:
        sentence: One sentence of a reply.
        client: The client's statement, turned; saying *you have to work* back to *I have to work* is no advice.
    """
    said = " ".join(words(client))
    return any(match.group(0) not in said for match in _ADVICE.finditer(" ".join(words(sentence))))


def is_validation(text: str) -> bool:
    """Tell whether a text acknowledges the client in general terms: *that sounds hard*, *that makes sense*."""
    return bool(_GENERIC_VALIDATION.search(" ".join(words(text))))


def meaning_phrases(text: str) -> list[str]:
    """List the phrases that speak of what the client wants, misses or values."""
    return [match.group(0) for match in _MEANING.finditer(" ".join(words(text)))]


def has_reason(text: str) -> bool:
    """Tell whether a text gives a reason."""
    return bool(_REASON.search(" ".join(words(text))))


def distinct_share(listed: list[str]) -> float:
    """Share of distinct word pairs among neighbouring words: 1 for ordinary text, towards 0 for a repeated word.

    Example:
        >>> distinct_share(words("no no no no no"))
        0.25
    """
    pairs = list(pairwise(listed))
    return len(set(pairs)) / len(pairs) if pairs else 1.0
