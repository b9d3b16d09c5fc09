"""Every error that is raised on purpose, and a stop. Messages read `<name> must <rule>, got <value>. <What to do.>`."""

from __future__ import annotations


class ParetuneError(Exception):
    """Base of all errors raised on purpose; the command line prints its message without a traceback."""


class ShapeError(ParetuneError, ValueError):
    """Arrays disagree on a dimension."""


class PreferenceError(ParetuneError, ValueError):
    """A preference cannot be put on the simplex, or names an objective the task does not have."""


class ConfigError(ParetuneError, ValueError):
    """A study file, task file or setting breaks its schema."""


class UnknownNameError(ConfigError):
    """A name is not in the table it was looked up in."""


class MethodError(ParetuneError):
    """A user's method, or code that it names, broke its contract; what it raised, if anything, is the cause."""


class TaskError(ParetuneError):
    """A task's files, prompts or columns cannot be used."""


class RewardError(ParetuneError):
    """A reward function broke its contract so badly that no row of the batch could be scored."""


class EnumerationError(ParetuneError):
    """A policy can be sampled, but not asked for the probability of every completion."""


class BudgetError(ParetuneError):
    """A budget is too small for what was asked, or would be exceeded."""


class SplitError(BudgetError):
    """A budget gives each of its parts too little; who knows what it is itself a part of has better advice."""

    def __init__(self, rule: str, advice: str = "") -> None:
        super().__init__(rule, advice)
        self.rule, self.advice = rule, advice

    def __str__(self) -> str:
        return f"{self.rule} {self.advice}".rstrip()


class ModelError(ParetuneError):
    """A base model cannot be loaded or adapted."""


class AdapterError(ParetuneError):
    """An adapter folder or a gate's file cannot be used with this base model."""


class WeightingError(ParetuneError, ValueError):
    """A weighting answered with objective weights that no update can be made with."""


class MixingError(ParetuneError):
    """A wrapped layer ran without a mixing, or with one of another batch."""


class RecordError(ParetuneError):
    """A file of a study is missing, damaged or belongs to something else."""


class VersionError(RecordError):
    """A file of a study was written by another version of the library."""


class StudyError(ParetuneError):
    """A study folder cannot be used for this study."""


class NonFiniteError(ParetuneError, ArithmeticError):
    """A quantity that must be finite became NaN or infinite."""


class MissingDependencyError(ParetuneError, ImportError):
    """An optional package is needed and not installed."""


class StopRequested(KeyboardInterrupt):
    """A wish to stop that is real: Ctrl-C, or a parent's word to its worker; never what a user's code raises."""
