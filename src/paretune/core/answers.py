"""How a solution set answers a preference: what separates the three families, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import ConfigError, ParetuneError, RecordError, ShapeError
from paretune.core.imports import import_name
from paretune.core.preferences import SUM_TOLERANCE, FloatArray, centre, nearest
from paretune.core.user_calls import called
from paretune.core.utilities import utility_table


class Answer(Protocol):
    """From preferences to expert weights: a frozen dataclass whose fields are plain data and arrays.

    A user's own is found again by `module:Class`, and made of the same fields: lists of numbers come back as arrays of
    float64, everything else as JSON has it.
    """

    @property
    def objectives(self) -> int:
        """Number of objectives K of the preferences it answers."""
        ...

    @property
    def experts(self) -> int:
        """Number of experts E it weighs."""
        ...

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        """Answer preferences `[M, K]` with expert weights `[M, E]` and, for each, a word on how it was answered."""
        ...


@dataclass(frozen=True, eq=False)
class Nearest:
    """The expert trained for the nearest preference answers (single-policy): `exact` or `nearest`.

    Attributes:
        trained: Preferences the experts were trained for, `[E, K]`.
    """

    trained: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "trained", number_table("trained", self.trained))

    @property
    def objectives(self) -> int:
        """Number of objectives K."""
        return int(self.trained.shape[1])

    @property
    def experts(self) -> int:
        """Number of experts E."""
        return len(self.trained)

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        """Answer preferences `[M, K]` with one-hot expert weights `[M, E]`.

        Raises:
            ShapeError: If the preferences are of another number of objectives.
        """
        check_columns(preferences, self.objectives)
        chosen = nearest(self.trained, preferences)
        exact = np.abs(self.trained[chosen] - preferences).max(axis=1) <= SUM_TOLERANCE  # as exact as it was typed
        return _one_hot(chosen, self.experts), ["exact" if same else "nearest" for same in exact]


@dataclass(frozen=True, eq=False)
class Selected:
    """The expert whose measured scores are worth most to the user answers (multi-policy): `selected`.

    Attributes:
        scores: Measured scores of the experts, as the task judges them, `[E, K]`.
        utility: What scores are worth for a preference, one of `core.utilities.UTILITIES`.
        points: What that utility needs beside the preference, `[K]`: an ideal, or thresholds; empty for `linear`.
        widths: Of the objectives' ranges, which that utility counts in, `[K]`; empty for `linear`.
    """

    scores: FloatArray
    utility: str = "linear"
    points: FloatArray = field(default_factory=lambda: np.zeros(0))
    widths: FloatArray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", number_table("scores", self.scores))
        object.__setattr__(self, "points", np.asarray(self.points, dtype=np.float64))
        object.__setattr__(self, "widths", np.asarray(self.widths, dtype=np.float64))
        self.worth(centre(self.objectives)[None])  # so that what cannot be asked is refused at once

    @property
    def objectives(self) -> int:
        """Number of objectives K."""
        return int(self.scores.shape[1])

    @property
    def experts(self) -> int:
        """Number of experts E."""
        return len(self.scores)

    def worth(self, preferences: FloatArray) -> FloatArray:
        """Return what each expert is worth for each preference `[M, K]`, `[M, E]`."""
        points, widths = (each if each.size else None for each in (self.points, self.widths))
        return utility_table(self.utility, self.scores, preferences, points, widths)

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        """Answer preferences `[M, K]` with one-hot expert weights `[M, E]`.

        Raises:
            ShapeError: If the preferences are of another number of objectives.
        """
        check_columns(preferences, self.objectives)
        return _one_hot(self.worth(preferences).round(12).argmax(axis=1), self.experts), ["selected"] * len(preferences)


@dataclass(frozen=True, eq=False)
class Estimated(Selected, Nearest):
    """A trained preference keeps its own expert, `exact`; any other gets the one of the highest estimate: `estimated`.

    Estimates are noisy, and the highest of several is on average too high; a trained preference is never asked of them.

    Attributes:
        trained: Preferences the experts were trained for, `[E, K]`, the first field.
        scores: Estimated scores of the experts, as the user judges them, `[E, K]`.
        utility: As of `Selected`, and so are the points and widths that it needs.
    """

    def __post_init__(self) -> None:
        Nearest.__post_init__(self)
        Selected.__post_init__(self)
        if self.trained.shape != self.scores.shape:
            raise ShapeError(
                f"scores must be of the experts that were trained, {list(self.trained.shape)}, got "
                f"{list(self.scores.shape)}. Estimate each on every objective."
            )

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        """Answer preferences `[M, K]` with one-hot expert weights `[M, E]`.

        Raises:
            ShapeError: If the preferences are of another number of objectives.
        """
        own, words = Nearest.weights(self, preferences)
        best, _ = Selected.weights(self, preferences)
        exact = np.asarray([word == "exact" for word in words])
        return np.where(exact[:, None], own, best), ["exact" if same else "estimated" for same in exact]


@dataclass(frozen=True, eq=False)
class Combined:
    """Expert weights are linear in the preference (meta-policy): `combined`.

    Attributes:
        corners: Expert weights at each corner of the simplex, `[K, E]`.
    """

    corners: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "corners", number_table("corners", self.corners))

    @property
    def objectives(self) -> int:
        """Number of objectives K."""
        return len(self.corners)

    @property
    def experts(self) -> int:
        """Number of experts E."""
        return int(self.corners.shape[1])

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        """Answer preferences `[M, K]` with expert weights `[M, E]`.

        Raises:
            ShapeError: If the preferences are of another number of objectives.
        """
        check_columns(preferences, self.objectives)
        return preferences @ self.corners, ["combined"] * len(preferences)


@dataclass(frozen=True)
class Untrained:
    """The base model answers, under no expert: `untrained`.

    Attributes:
        objectives: Number of objectives K of the preferences it answers.
    """

    objectives: int

    @property
    def experts(self) -> int:
        """Number of experts E: none."""
        return 0

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        """Answer preferences `[M, K]` with no expert weights, `[M, 0]`.

        Raises:
            ShapeError: If the preferences are of another number of objectives.
        """
        check_columns(preferences, self.objectives)
        return np.zeros((len(preferences), 0)), ["untrained"] * len(preferences)


_PARTS = ("objectives", "experts", "weights")


def answered(answer: Answer, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
    """Ask an answer, a user's own too, and check what it says.

    Args:
        answer: The answer.
        preferences: `[M, K]`.

    Returns:
        Expert weights `[M, E]`, and for each preference how it was answered.

    Raises:
        ShapeError: If it does not return a finite weight for each preference and expert, and a word for each
            preference.
    """
    kind = type(answer).__name__
    # ours are asked in every optimiser step, where what guards against a user's code would cost a millisecond
    ours = type(answer).__module__.startswith("paretune.")
    with nullcontext() if ours else called(f"weights of answer {kind}"):
        said: Any = answer.weights(preferences)
    if not isinstance(said, tuple) or len(said) != 2:
        raise ShapeError(
            f"answer {kind} must return expert weights and words on how it answered, got {type(said).__name__}. Let "
            "its weights() return both."
        )
    found, words = said
    weights, wanted = np.asarray(found, dtype=np.float64), (len(preferences), answer.experts)
    if weights.shape != wanted or not np.isfinite(weights).all():
        what = f"shape {list(weights.shape)}" if weights.shape != wanted else "NaN or infinity"
        raise ShapeError(
            f"weights of answer {kind} must be finite, one per preference and expert {list(wanted)}, got {what}. "
            "Correct its weights()."
        )
    if len(words) != len(preferences) or not all(isinstance(word, str) and word for word in words):
        raise ShapeError(
            f"answer {kind} must say in one word how it answered each of {len(preferences)} preferences, got "
            f"{list(words)[:4]}. Let its weights() return a list of strings beside the weights."
        )
    return weights, list(words)


def answer_to_plain(answer: Answer) -> dict[str, object]:
    """Return an answer as plain data: `class`, its `module:Class`, and its fields.

    Raises:
        ConfigError: If its class is no dataclass of an answer at the top of a module, or a field is no plain data.
    """
    name, where = type(answer).__qualname__, f"{type(answer).__module__}:{type(answer).__qualname__}"
    if not is_dataclass(answer) or "." in name or not all(hasattr(answer, part) for part in _PARTS):
        raise ConfigError(
            f"answer must be an instance of a dataclass at the top of its module, with {', '.join(_PARTS)}, got "
            f"{where}. Move it there, so that a saved solution set finds it again."
        )
    plain: dict[str, object] = {"class": where}
    for each in fields(answer):
        if each.init:
            plain[each.name] = _plain(f"{name}.{each.name}", getattr(answer, each.name))
    return plain


def answer_from_plain(data: Any) -> Answer:
    """Make an answer of what `answer_to_plain` returned; lists of numbers become arrays.

    A field that a class got later, with a default, may be missing.

    Raises:
        RecordError: If the class cannot be imported or is none of an answer, or the fields are not its own. Nothing is
            called then.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("class"), str):
        raise RecordError(f"answer must name its class as 'module:Class', got {data!r}. Copy or train it again.")
    name = data["class"]
    cls: Any = _resolve(name)
    values = {key: _array(value) for key, value in data.items() if key != "class"}
    known = {each.name: each for each in fields(cls) if each.init}
    needed = {name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING}
    if not needed <= set(values) <= set(known):
        raise RecordError(
            f"answer '{name}' must have the fields {', '.join(sorted(known))}, got {', '.join(sorted(values))}. Use "
            "the version of the class that it was saved with."
        )
    try:
        answer: Answer = cls(**values)
    except (ParetuneError, TypeError, ValueError) as error:
        raise RecordError(f"answer '{name}' must be made of its fields, got: {error}. Train it again.") from error
    return answer


def _resolve(name: str) -> type:
    """Import the class of an answer; whatever else a file may name is refused before anything is called."""
    try:
        found = import_name("answer", name)
    except ConfigError as error:
        raise RecordError(str(error)) from error
    if not (isinstance(found, type) and is_dataclass(found) and callable(getattr(found, "weights", None))):
        raise RecordError(
            f"answer must be of a dataclass with weights(), got '{name}', which is none. Do not load this folder if "
            "you do not know where it is from; else train it again."
        )
    return found


def _plain(name: str, value: object) -> object:
    """Return a field as JSON has it."""
    listed = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    try:
        return json.loads(json.dumps(listed, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} must be plain data of finite numbers, got {type(value).__name__} ({error}). Keep arrays, numbers "
            "and strings in an answer."
        ) from error


def _array(value: object) -> object:
    """Return a list of numbers, nested or not, as an array of float64; anything else as it is."""
    if not isinstance(value, list):
        return value
    try:
        made = np.asarray(value)
    except ValueError:  # rows of different lengths
        return value
    return made.astype(np.float64) if made.dtype.kind in "iuf" else value


def number_table(name: str, value: ArrayLike) -> FloatArray:
    """Return a table of numbers as float64.

    Raises:
        ShapeError: If it has not two dimensions, has no entry, or one that is not finite.
    """
    table = np.asarray(value, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise ShapeError(f"{name} must have two dimensions and an entry, got shape {list(table.shape)}. Correct it.")
    if not np.isfinite(table).all():
        raise ShapeError(f"{name} must be finite, got NaN or infinity. Check what it was made of.")
    return table


def check_columns(preferences: FloatArray, objectives: int) -> None:
    """Check that preferences are `[M, K]`.

    Raises:
        ShapeError: If they are of another number of objectives.
    """
    if preferences.ndim != 2 or preferences.shape[1] != objectives:
        raise ShapeError(
            f"preferences must have one column per objective ({objectives}), got {preferences.shape[-1]}. "
            "Give every objective a weight; 0 is allowed."
        )


def _one_hot(index: NDArray[np.int64], size: int) -> FloatArray:
    return np.asarray(np.eye(size)[index])
