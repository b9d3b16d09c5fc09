"""Objectives: one trait per file, the user's reward functions and reward models, and the scorer that runs them all."""

from __future__ import annotations

from typing import Final

OBJECTIVES: Final[dict[str, str]] = {
    "reflection": "paretune.objectives.reflection:reflection",
    "empathy": "paretune.objectives.empathy:empathy",
    "fluency": "paretune.objectives.fluency:fluency",
    "brevity": "paretune.objectives.brevity:brevity",
}
"""Built-in objectives, name -> `module:function` with TRL's reward signature."""
