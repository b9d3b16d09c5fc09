"""Classes of feedback: what a method knows of what a user wants of a prompt, where that depends on the prompt."""

from __future__ import annotations

from collections.abc import Mapping

FEEDBACKS = ("told", "utility", "oracle")
"""`told`: the preference alone; `utility`: in training, of each completion the one number that it is worth to its user;
`oracle`: what the user wants of the prompt is the preference asked for, in training and in answering."""


def feedback_of(settings: Mapping[str, object]) -> str:
    """Return the class that a method's or a stage's settings name; `told` where they name none.

    Example:
        >>> feedback_of({"feedback": "oracle"}), feedback_of({"rank": 8})
        ('oracle', 'told')
    """
    found = settings.get("feedback")
    return str(found) if found in FEEDBACKS else "told"
