"""What the measurements of a stage said and cost, kept where a stop leaves it, so that none is made twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from paretune.core.digests import digest
from paretune.core.ledger import Ledger, Seconds
from paretune.core.stages import Stage, StageContext

UNTIMED = "total"  # the phase of a stage that times nothing itself


class KeptMeasurements:
    """Measurements of one stage, each kept in its checkpoint folder before it is reported.

    What a measurement says is a function of what is asked, and a run function asks the same again when it goes on after
    a stop. It is answered from the file then, and the ledger goes on from where it stood behind that measurement.
    """

    def __init__(self, context: StageContext, stage: Stage) -> None:
        """Read what earlier attempts have measured.

        Args:
            context: Of the run function.
            stage: Whose ledger the measurements charge.
        """
        from paretune.rl.checkpoints import read_state

        self._context, self._ledger = context, context.ledger(stage)
        self._file = context.checkpoint_folder() / f"measurements-{stage.key(context.task)}.safetensors"
        self._kept: dict[str, dict[str, Any]] = read_state(self._file)[1] if self._file.exists() else {}

    def answer(self, asked: Mapping[str, object], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what a measurement says; where it is new, make it, keep it, and report its completions.

        Args:
            asked: Plain data that it is a function of. What is asked twice is made twice: where the ledger stands tells
                one from the other.
            make: Makes it, charges the ledger, and returns plain data without NaN.

        Raises:
            StopRequested: If a stop was asked for; the measurement is kept then.
        """
        from paretune.rl.checkpoints import save_state

        ledger, before = self._ledger, self._ledger.completions
        name = digest({"asked": asked, "completions": before})
        if name in self._kept:
            ledger.resume(self._kept[name]["ledger"])
            known: dict[str, Any] = self._kept[name]["answer"]
            return known
        began = Seconds.now()
        made = make()
        seconds = began.passed()
        if UNTIMED in ledger.seconds:  # it went on after a stop: the time of this attempt alone would be too little
            ledger.add_seconds(UNTIMED, *seconds)
        spent = ledger.state()
        del spent["budget_completions"]  # the stage's own is kept
        if not spent["seconds"]:
            kept = Ledger()
            if self._kept:
                kept.resume([*self._kept.values()][-1]["ledger"])
            kept.add_seconds(UNTIMED, *seconds)
            spent |= {"seconds": kept.seconds, "cpu_seconds": kept.cpu_seconds}
        self._kept[name] = {"answer": made, "ledger": spent}
        save_state(self._file, {}, self._kept)
        self._context.progress(ledger.completions - before)
        return made
