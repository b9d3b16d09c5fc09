"""Client statements and counsellor replies, composed from phrases we wrote.

A statement joins a situation ("putting off calling my sister"), a feeling (named or only shown) and mostly a reason. A
situation belongs to exactly one part of the data, by the digest of its words: the base model's text and the training
prompts share one part, the fluency judge, the development prompts and the test prompts have one each.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from paretune.core.errors import UnknownNameError
from paretune.objectives.lexicon import FEELING_CUES, FEELING_WORDS, turn_person
from paretune.tasks.counselling.phrases import (
    DELAYED,
    DELAYING,
    DOING,
    FEELING_CLAUSES,
    GLAD_OPENINGS,
    OPENINGS,
    PEOPLE,
    REASONS,
    TALKING,
    THINGS,
    WHERE,
    WITH_PERSON,
    WITH_THING,
)

MEANINGS: Final[dict[str, tuple[str, ...]]] = {
    "fear": ("you want to feel safe", "you wish you could trust it will be fine"),
    "sadness": ("you miss how things were", "part of you is still saying goodbye"),
    "anger": ("you want to be treated fairly", "it matters to you to be heard"),
    "guilt": ("you want to make it right", "it matters to you to be honest"),
    "loneliness": ("you long for someone close", "you wish someone would notice"),
    "exhaustion": ("you long for some rest", "part of you wants to put it all down"),
    "hurt": ("you wish someone had stood by you", "it matters to you to be able to trust"),
    "confusion": ("you want to see a way forward", "part of you wants both"),
    "joy": ("you want to hold on to it", "it matters to you that you did it yourself"),
}
KINDS: Final[dict[str, float]] = {
    "complex_reflection": 0.27,
    "simple_reflection": 0.22,
    "feeling": 0.16,
    "validation": 0.05,
    "affirmation": 0.07,
    "open_question": 0.1,
    "advice": 0.07,
    "off_topic": 0.03,
    "broken": 0.03,
}
"""Kind of reply -> its share of the base model's text. The judge's text has no broken replies."""

WRONG_FEELING: Final = 0.22  # share of replies that name a feeling of another family
DEFAULT_SIZES: Final[dict[str, int]] = {"train": 512, "development": 64, "test": 128}
_SEEDS: Final[dict[str, int]] = {"train": 1, "development": 2, "test": 3}
_PARTS: Final = ("train",) * 14 + ("judge",) * 2 + ("development",) * 2 + ("test",) * 2


@dataclass(frozen=True)
class Statement:
    """One client statement and what it was composed of."""

    text: str
    situation: str  # "putting off calling my sister"
    feeling: str  # a family of the lexicon
    named: str | None  # the client's own word for it, if there is one
    reason: str | None  # "because my sister needs me"


@cache
def situations(part: str) -> tuple[str, ...]:
    """List the situations of one part of the data: `train`, `judge`, `development` or `test`.

    Raises:
        UnknownNameError: If there is no such part.
    """
    return tuple(situation for shape in _shapes(part) for situation in shape)


@cache
def _shapes(part: str) -> tuple[tuple[str, ...], ...]:
    """Situations of one part by their form, so that the many long ones do not drown the few short ones."""
    if part not in _PARTS:
        raise UnknownNameError(f"part must be one of {', '.join(dict.fromkeys(_PARTS))}, got {part!r}.")
    with_person = [f"{verb} {who}" for verb in WITH_PERSON for who in PEOPLE]
    with_thing = [f"{verb} my {thing}" for verb, things in WITH_THING.items() for thing in things]
    short = with_person + with_thing
    about = [f"{verb} {who} about my {thing}" for verb in TALKING for who in PEOPLE for thing in THINGS]
    can_wait = [situation for situation in short if situation.startswith(DELAYED)]
    delayed = [f"{delay} {situation}" for delay in DELAYING for situation in can_wait]
    unshared = [f"{verb} {where}" for verb in DOING for where in WHERE]
    return tuple(
        tuple(situation for situation in shape if _part(situation) == part)
        for shape in (short, about, delayed, unshared)
    )


def _part(situation: str) -> str:
    return _PARTS[hashlib.sha256(situation.encode()).digest()[0] % len(_PARTS)]


def statements(part: str, seed: int) -> Iterator[Statement]:
    """Compose client statements without end; equal part and seed give equal statements, on any machine."""
    source = random.Random(f"{part} {seed}")
    shapes = _shapes(part)
    while True:
        situation = source.choice(source.choices(shapes, weights=(4, 2, 3, 1))[0])
        yield _statement(situation, source)


def _statement(situation: str, source: random.Random) -> Statement:
    family = source.choice(list(FEELING_WORDS))
    named = source.choice(FEELING_WORDS[family][:5]) if source.random() < 0.65 else None  # the rest: rare or slang
    shown = source.choice(FEELING_CUES[family][:4])  # whole clauses; single words follow them in the table
    feeling = source.choice(FEELING_CLAUSES).format(f=named) if named else re.sub(r"\bi(?=[ '])", "I", shown)
    opening = source.choice(GLAD_OPENINGS if family == "joy" else OPENINGS).format(s=situation)
    reason = f"because {_reason(source)}" if source.random() < 0.6 else None
    if reason is None:
        form = source.choice(("{o}, and {f}.", "{o}. {F}.", "{F}. {o}."))
    else:
        form = source.choice(("{o} {r}, and {f}.", "{o}. {F} {r}.", "{o} {r}. {F}.", "{F}. {o} {r}."))
    text = form.format(o=opening, f=feeling, F=_capital(feeling), r=reason)
    return Statement(text, situation, family, named, reason)


def _reason(source: random.Random) -> str:
    return source.choice(REASONS).format(p=source.choice(PEOPLE), t=f"my {source.choice(THINGS)}")


def reply(statement: Statement, kind: str, source: random.Random) -> str:
    """Compose one counsellor reply of a kind of `KINDS` to a statement."""
    composed: str = _REPLIES[kind](statement, source)
    return (
        composed
        if kind == "broken"
        else re.sub(r"(^|[.?] )([a-z])", lambda m: m.group(1) + m.group(2).upper(), composed)
    )


def draw_kind(source: random.Random, broken: bool = True) -> str:
    """Draw a kind of reply by the shares of `KINDS`, with or without broken replies."""
    kinds = [kind for kind in KINDS if broken or kind != "broken"]
    return source.choices(kinds, weights=[KINDS[kind] for kind in kinds])[0]


def prompts(split: str, n: int | None = None) -> list[dict[str, object]]:
    """Compose the prompts of a split: distinct statements, the first ones the same for every length.

    Args:
        split: `train`, `development` or `test`. The last two have situations that no training text has.
        n: How many; by default 512, 64 and 128.

    Returns:
        One row a prompt: `prompt`, `prompt_id`, `situation`, `feeling` (a family of the lexicon).

    Raises:
        UnknownNameError: If there is no such split.
    """
    if split not in DEFAULT_SIZES:
        raise UnknownNameError(f"split must be one of {', '.join(DEFAULT_SIZES)}, got {split!r}.")
    distinct: dict[str, Statement] = {}
    wanted = DEFAULT_SIZES[split] if n is None else n
    composed = statements(split, _SEEDS[split])
    while len(distinct) < wanted:
        statement = next(composed)
        distinct.setdefault(statement.text, statement)
    return [
        {"prompt": s.text, "prompt_id": f"{split}-{index:04d}", "situation": s.situation, "feeling": s.feeling}
        for index, s in enumerate(distinct.values())
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _about(statement: Statement) -> str:
    """The situation said to the client: *putting off calling your sister*, or *not ...* where it is over."""
    turned = turn_person(statement.situation)
    return f"not {turned}" if statement.feeling == "joy" else turned


def _feeling_word(statement: Statement, source: random.Random, new: bool = False) -> str:
    """A word for the client's feeling: their own or a synonym; now and then one of another family."""
    family = statement.feeling
    if source.random() < WRONG_FEELING:
        family = source.choice([other for other in FEELING_WORDS if other != family])
    elif statement.named and not new and source.random() < 0.5:
        return statement.named
    return source.choice([word for word in FEELING_WORDS[family][:5] if word != statement.named])


def _because(statement: Statement) -> str:
    return f", {turn_person(statement.reason)}" if statement.reason else ""


def _simple_reflection(statement: Statement, source: random.Random) -> str:
    if statement.reason and source.random() < 0.1:
        return f"it's {turn_person(statement.reason)}."
    about = turn_person(statement.situation)
    if statement.feeling == "joy":
        said = source.choice(
            ("you stopped {a}", "you've stopped {a}", "you're no longer {a}", "you get by without {a}")
        )
        last = source.choice(("", "", " now", " for good", _because(statement)))
    else:
        said = source.choice(("you keep {a}", "you keep {a}", "you're {a}", "you've been {a}", "you find yourself {a}"))
        last = source.choice(("", "", " again", " lately", " these days", _because(statement), _because(statement)))
    lead = source.choice(("", "", "", "so ", "it sounds like ", "I hear that ", "it seems that "))
    return lead + said.format(a=about) + last + "."


def _complex_reflection(statement: Statement, source: random.Random) -> str:
    about, feeling = _about(statement), _feeling_word(statement, source)
    meaning = f", and {source.choice(MEANINGS[statement.feeling])}"
    lead = source.choice(("", "", "", "it sounds like ", "so ", "I hear that "))
    said = source.choice(
        (
            f"you feel {feeling} about {about}",
            f"you feel {feeling} about {about}",
            f"you sound {feeling} about {about}" if not lead else f"you're {feeling} about {about}",
            f"{about} leaves you {feeling}",
            f"{about} makes you {feeling}",
            f"{about} makes you feel {feeling}",
        )
    )
    return lead + said + source.choice((meaning, _because(statement) or meaning)) + "."


def _feeling(statement: Statement, source: random.Random) -> str:
    degree = source.choice(("", "", "", "so ", "really ", "quite "))
    feeling = degree + _feeling_word(statement, source)
    lead = source.choice(("", "", "", "it sounds like ", "I hear that "))
    said = source.choice(
        (
            f"you feel {feeling}",
            f"you feel {feeling}",
            f"you're {feeling}",
            f"you must feel {feeling}",
            f"it leaves you {feeling}",
            f"all of this makes you {feeling}",
            f"you seem {feeling}" if not lead else f"you are {feeling}",
        )
    )
    return (
        lead
        + said
        + source.choice(("", "", " these days", " right now", f" about {_about(statement)}", _because(statement)))
        + "."
    )


def _validation(statement: Statement, source: random.Random) -> str:
    hard = ("that sounds hard", "that sounds really hard", "that must be hard", "that's a lot to carry", "that's heavy")
    glad = ("that sounds good", "that's a big change", "that's good to hear")
    either = ("that makes sense", "I hear you", "no wonder")
    last = ("", "", ", anyone would feel that way", ", and you're not the only one", ", given all of that")
    return source.choice((glad if statement.feeling == "joy" else hard) + either) + source.choice(last) + "."


def _affirmation(statement: Statement, source: random.Random) -> str:
    about = _about(statement)
    virtue = source.choice(("courage", "strength", "honesty", "patience"))
    deed = source.choice(("say that", "come here", f"talk about {about}", f"be honest about {about}"))
    trust = source.choice(("telling me", "trusting me with this", f"being honest about {about}"))
    effort = source.choice(("have not given up", "have kept going", "are working hard at this", "are doing your best"))
    last = source.choice(("", "", ", even now", ", and it shows", ", even after all of this"))
    return source.choice((f"it takes {virtue} to {deed}", f"thank you for {trust}", f"you {effort}{last}")) + "."


def _open_question(statement: Statement, source: random.Random) -> str:
    about, feeling = _about(statement), _feeling_word(statement, source)
    lead = source.choice(("", "", "", _simple_reflection(statement, source) + " "))
    asked = [
        "what would help most right now",
        "what would you like to change",
        "what would be a good first sign",
        "how long has this been going on",
        "what is that like for you",
        "who knows about this",
        "when is it a little easier",
        f"how do you feel about {about}",
        f"what happens when it comes to {about}",
        f"what comes to mind about {about}",
        f"when do you feel most {feeling}",
        f"what makes you so {feeling}",
        f"how did {about} begin",
    ]
    if statement.feeling != "joy":
        asked += [f"what makes {about} so hard", f"what would life be like without {about}"]
    return lead + source.choice(asked) + "?"


_STEPS: Final = (
    "make a list",
    "go for a walk",
    "get more sleep",
    "see a doctor",
    "set a timer",
    "write it down",
    "take a day off",
    "drink less coffee",
    "read a book on it",
    "join a club",
)


def _advice(statement: Statement, source: random.Random) -> str:
    step, then = source.sample(_STEPS, 2)
    both = source.choice((step, f"{step} and {then}"))
    last = source.choice(("", "", ", it works for everyone", ", it is that simple"))
    return source.choice(
        (
            f"you should {both}{last}.",
            f"you need to {both}{last}.",
            f"maybe you should just {both}.",
            f"why don't you just {both}?",
            f"have you tried to {both}?",
            f"if I were you, I would {both}.",
            f"just {both}{last}.",
            f"try to {step} when you feel {_feeling_word(statement, source)}.",
            f"you should not feel {_feeling_word(statement, source)}, just {step}.",
            f"you should stop {turn_person(statement.situation)} and {step}."
            if statement.feeling != "joy"
            else "you should keep it up.",
        )
    )


_THEMES: Final = (
    "the bus was late",
    "the weather was nice",
    "I had soup for lunch",
    "I need new tyres",
    "there was a sale on shoes",
    "the match ended two to one",
    "the cat slept in",
    "the coffee machine broke",
)


def _off_topic(statement: Statement, source: random.Random) -> str:
    when = source.choice(("", " this morning", " on Sunday", " again", " at the station"))
    return source.choice(_THEMES) + when + source.choice((".", ".", ", by the way.", ", I think."))


def _broken(statement: Statement, source: random.Random) -> str:
    """A reply gone wrong: words shuffled, dropped or stuck."""
    whole = reply(statement, source.choice(("simple_reflection", "complex_reflection", "feeling", "advice")), source)
    listed = whole.rstrip(".?").lower().split()[:12]
    way = source.randrange(3)
    if way == 0:
        source.shuffle(listed)
    elif way == 1:
        listed = [word for word in listed if source.random() < 0.5] or listed[:1]
    else:
        at = source.randrange(len(listed))
        listed = listed[: at + 1] + [listed[at]] * source.randint(1, 4) + listed[at + 1 :][:4]
    return " ".join(listed)


_REPLIES: Final = {
    "complex_reflection": _complex_reflection,
    "simple_reflection": _simple_reflection,
    "feeling": _feeling,
    "validation": _validation,
    "affirmation": _affirmation,
    "open_question": _open_question,
    "advice": _advice,
    "off_topic": _off_topic,
    "broken": _broken,
}
