"""Phrases that client statements are made of, which we wrote: who, what, where, how often, and why."""

from typing import Final

PERSONS: Final = tuple(
    """sister brother mother father wife husband partner son daughter boss friend neighbour aunt uncle grandmother
    roommate coach teacher manager cousin ex doctor team family landlord colleague grandfather nephew niece
    tutor""".split()
)
NAMES: Final = tuple(
    """Anna Tom Maria Ben Lena Omar Grace Ivan Priya Carlos Hannah Noah Julia Felix Aisha Peter Sofia Kenji Ruth
    Marco""".split()
)
PEOPLE: Final = (*(f"my {person}" for person in PERSONS), *NAMES)
_COSTS: Final = tuple("rent bills debts taxes visa licence savings budget wedding passport surgery".split())
_BELONGINGS: Final = tuple("flat garden house bike phone car kitchen piano paintings laundry boat office van".split())
_EFFORTS: Final = tuple("degree project thesis exams homework studies report novel training music business job".split())
_LIFE: Final = tuple("diet health teeth knee marriage church dog band".split())
THINGS: Final = _COSTS + _BELONGINGS + _EFFORTS + _LIFE
WITH_PERSON: Final = (
    "calling",
    "visiting",
    "saying no to",
    "apologising to",
    "standing up to",
    "checking on",
    "helping",
    "cooking for",
    "arguing with",
    "lying to",
    "taking care of",
    "living with",
    "working with",
    "borrowing money from",
    "hiding things from",
    "yelling at",
    "missing",
    "depending on",
    "being ignored by",
    "picking up after",
    "making excuses for",
    "waiting for",
    "competing with",
    "trying to please",
)
WITH_THING: Final = {
    "talking about": THINGS,
    "losing sleep over": THINGS,
    "joking about": THINGS,
    "spending money on": _BELONGINGS + _EFFORTS + _LIFE,
    "paying for": _COSTS + _BELONGINGS + _LIFE,
    "hiding": _COSTS + _LIFE,
    "falling behind on": _COSTS + _EFFORTS,
    "cleaning": _BELONGINGS,
    "selling": _BELONGINGS,
    "fixing": _BELONGINGS,
    "dreaming about": _BELONGINGS + _EFFORTS,
    "working on": _EFFORTS + _LIFE,
    "giving up on": _EFFORTS + _LIFE,
    "making plans for": _EFFORTS + _BELONGINGS,
    "neglecting": _BELONGINGS + _EFFORTS + _LIFE,
}
TALKING: Final = ("arguing with", "lying to", "joking with", "complaining to", "fighting with", "talking to")
DELAYING: Final = ("putting off", "avoiding", "thinking about", "getting out of", "dreading the idea of")
DELAYED: Final = (
    *WITH_PERSON[:9],
    "talking about",
    "paying for",
    "cleaning",
    "selling",
    "fixing",
    "working on",
    "giving up on",
)
DOING: Final = (
    "eating",
    "drinking",
    "smoking",
    "sitting",
    "working",
    "studying",
    "shopping",
    "gaming",
    "pacing",
    "reading",
    "running",
    "sleeping",
)
WHERE: Final = (
    "at night",
    "after work",
    "in the car",
    "on the sofa",
    "in the kitchen",
    "in my room",
    "until three",
    "every weekend",
    "before breakfast",
    "at my desk",
    "by myself",
    "behind closed doors",
    "in the garage",
    "at the office",
)
OPENINGS: Final = (
    "I keep {s}",
    "I'm {s} again",
    "I've been {s} for weeks",
    "I've been {s} since spring",
    "I can't stop {s}",
    "I spend every evening {s}",
    "I ended up {s} last night",
    "Lately I've been {s}",
    "I'm still {s}",
    "I find myself {s}",
    "I went back to {s}",
)
GLAD_OPENINGS: Final = (
    "I finally stopped {s}",
    "I've stopped {s}",
    "I got through a week without {s}",
    "I'm no longer {s}",
)
FEELING_CLAUSES: Final = (
    "I feel {f}",
    "I feel so {f}",
    "it makes me {f}",
    "it leaves me {f}",
    "honestly I'm {f}",
    "I'm {f} all the time",
)
REASONS: Final = (
    "{p} needs me",
    "{p} never listens",
    "I promised {p}",
    "I don't want to lose {p}",
    "I care about {p}",
    "{p} expects it of me",
    "I never have enough time",
    "I need the money",
    "nobody else will do it",
    "I can't say no",
    "I grew up without much",
    "{p} left",
    "I lost my job",
    "I moved in with {p}",
    "{p} did the same",
    "it was my idea",
    "I want to be good at it",
    "I told {p} about {t}",
    "I gave {p} my word",
)
