"""Write the studies of the meta-policy family with the settings that its sweeps chose.

    python recipes/meta_policy/studies.py results/meta-policy-sweep results/meta-policy-sweep-{wide,support,others}

Writes what was tried and what was chosen into `docs/results/data/meta_policy`, too: a table for each sweep and
`chosen.json`, which stands for the folders of the sweeps where they are gone. Of each study the docstring of its
function says what it asks. Rows that were swept with several splits of the budget come with the split that scored best.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretune.benchmark.study import load_study
from paretune.core.errors import ParetuneError
from paretune.tasks import load_task
from paretune.tasks.strict_yaml import to_yaml

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "docs/results/data/meta_policy"
sys.path.insert(0, str(HERE.parent))
from chosen_settings import (  # type: ignore[import-not-found]  # noqa: E402  # one folder up
    Choice,
    load_choices,
    save_choices,
    write_points,
)

Row = dict[str, Any]
Study = dict[str, Any]
CORRELATIONS, HETEROGENEITIES = (-0.8, 0.0, 0.8), (0.0, 0.5)
RELATIONS = {-0.8: "competing", -0.4: "half_competing", 0.0: "independent", 0.8: "correlated"}
R = 4096
BUDGETS = [2248, 4504, 9008, 18016]  # .05, .1, .2 and .4 of 11 R, in whole groups
EQUAL = BUDGETS[2]
HIGHEST = 0.02  # learning rate of the sweeps
THREE = [6144, 12288]  # .1 and .2 of 15 R
SUPPORT = ("linear_support_three", "linear_support_four", "linear_support")
SPLITS = {
    "linear": ("linear", "linear_five", "linear_eleven"),
    "weight_grid": ("weight_grid", "weight_grid_eleven"),
    "linear_support": SUPPORT,
}  # rows that train a policy for each preference, by how many the budget is split into
OTHERS = ("bone_soups", "iterative_soups", "panacea", "preference_in_prompt", "reptile", "bilevel", "tree")
WIDE = ("preference_conditioned_wide", "mod_wide")  # of the rank of a whole bank in each expert
SWEPT = {"wide": WIDE, "support": SUPPORT, "others": OTHERS}  # rows with a sweep of their own, by study
SEARCHES = ("grid", "random", "mirror_descent", "gradient_free")


def tasks(correlations: Sequence[float], heterogeneities: Sequence[float], **settings: Any) -> list[Row]:
    """Return controlled tasks of every correlation and heterogeneity."""
    return [
        {"controlled": {"rho": rho, "heterogeneity": h, **settings}} for rho in correlations for h in heterogeneities
    ]


def study(
    name: str, of: list[Row], rows: Mapping[str, Row], budgets: Sequence[int], seeds: int, divisions: int = 10
) -> Study:
    """Return a study in parts of one correlation and at most five instances each.

    The standing row `one_policy` learns as by default.
    """
    return {
        "name": f"meta-policy-{name}", "tasks": of, "methods": {"one_policy": {"method": "one_policy"}, **rows},
        "budget": {"completions": list(budgets)}, "seeds": seeds,
        "preferences": {"grid": divisions, "unseen": 4 if divisions == 10 else 0}, "parts": parts(of, seeds),
    }  # fmt: skip


def parts(of: list[Row], seeds: int) -> dict[str, Row]:
    """Return parts of one correlation and at most five instances each, by name."""
    found: dict[float, list[str]] = {}
    for task in of:
        found.setdefault(task["controlled"]["rho"], []).append(load_task(task).name)
    return {
        f"{RELATIONS[rho]}_from_{first}": {"tasks": names, "seeds": list(range(first, min(first + 5, seeds)))}
        for first in range(0, seeds, 5) for rho, names in found.items()
    }  # fmt: skip


def at_both_rates(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Return rows whose sweep chose its highest learning rate at half of that, too, as `NAME_slower`.

    It is the best rate on tuning instances, and now and then a policy breaks there.
    """
    found: dict[str, Row] = {}
    for name, row in rows.items():
        found[name] = row
        if row["learning_rate"] == HIGHEST:
            found[f"{name}_slower"] = {**row, "learning_rate": HIGHEST / 2}
    return found


class Studies:
    """All studies, of what the sweeps chose and what that scored."""

    def __init__(self, chosen: Mapping[str, Choice]) -> None:
        self.rows: dict[str, Row] = {label: dict(each.row) for label, each in chosen.items()}
        for name, labels in SPLITS.items():
            if chosen.keys() >= {*labels}:
                self.rows[f"{name}_equal"] = self.rows[max(labels, key=lambda label: chosen[label].score)]
        self.mixture, self.soups = self.rows["mixture_of_experts"], self.rows["rewarded_soups"]

    def like_soups(self, method: str, **settings: Any) -> Row:
        """Return a row that combines experts which learn as those of rewarded soups do."""
        return {**self.soups, "method": method, **settings}

    def yardstick(self) -> Study:
        """What one policy of R for each of eleven preferences gains; all kept gains are shares of that."""
        rows = {"linear": self.rows["linear"]}
        return study("yardstick", tasks(CORRELATIONS, HETEROGENEITIES), at_both_rates(rows), [11 * R], 10)

    def main(self) -> Study:
        """One policy for all preferences along its budget: what it keeps."""
        rows = {name: self.rows[name] for name in ("mixture_of_experts", "preference_conditioned")}
        return study("main", tasks(CORRELATIONS, HETEROGENEITIES), rows, BUDGETS, 10)

    def equal(self) -> Study:
        """Every rival at an equal budget."""
        rows = {name: self.rows[name] for name in ("rewarded_soups", "mod")}
        rows["one_policy_tuned"] = self.rows["one_policy"]
        rows |= {name: self.rows[f"{name}_equal"] for name in ("linear", "weight_grid")}
        return study("equal", tasks(CORRELATIONS, HETEROGENEITIES), at_both_rates(rows), [EQUAL], 10)

    def wide(self) -> Study:
        """The two best rivals with the parameters of a whole bank in each expert."""
        return study("wide", tasks([-0.8], HETEROGENEITIES), {name: self.rows[name] for name in WIDE}, [EQUAL], 5)

    def support(self) -> Study:
        """The other multi-policy rival."""
        rows = {"linear_support": self.rows["linear_support_equal"]}
        return study("support", tasks(CORRELATIONS, HETEROGENEITIES), at_both_rates(rows), [EQUAL], 10)

    def eleven(self) -> Study:
        """One policy for each preference that is asked, which was better than five on tuning instances at h 0."""
        rows = {"linear_eleven": self.rows["linear_eleven"]}
        return study("eleven", tasks(CORRELATIONS, HETEROGENEITIES), at_both_rates(rows), [EQUAL], 5)

    def controls(self) -> Study:
        """What the gate buys, and what of that is context."""
        rows = {f"gate_{context}": {**self.mixture, "context": context} for context in ("blind", "shuffled")}
        return study("controls", tasks([-0.8], HETEROGENEITIES), rows, BUDGETS[:3], 10)

    def three(self) -> Study:
        """Three objectives, fifteen weights."""
        names = ("mixture_of_experts", "preference_conditioned", "rewarded_soups", "mod")
        of = tasks((-0.4, 0.0), (0.5,), objectives=3)
        return study("three", of, at_both_rates({name: self.rows[name] for name in names}), THREE, 5, 4)

    def three_yardstick(self) -> Study:
        """The yardstick of three objectives: a policy of R for each point of the grid, and one for its centre."""
        of = tasks((-0.4, 0.0), (0.5,), objectives=3)
        return study("three-yardstick", of, at_both_rates({"linear": self.rows["linear"]}), [16 * R], 5, 4)

    def three_equal(self) -> Study:
        """Rivals of three objectives that train policies for single preferences, at .2 of 15 R."""
        of = tasks((-0.4, 0.0), (0.5,), objectives=3)
        rows = {name: self.rows[f"{name}_equal"] for name in ("linear", "weight_grid")}
        return study("three-equal", of, at_both_rates(rows), THREE[1:], 5, 4)

    def upper_levels(self, share: float = 0.25) -> dict[str, Row]:
        """Return what learns to combine experts that soups would average, from a share of the budget.

        A gate learns at the rate of the mixture's.
        """
        like, rate = self.like_soups, self.mixture["learning_rate"]
        gates = {"gate_share": share, "gate_learning_rate": rate}
        return {
            **{f"searched_{each}": like("searched_soups", search=each, search_share=share) for each in SEARCHES},
            "emorl": like("emorl", search_share=share),
            "contextual_bandit": like("contextual_bandit", bandit_share=share),
            **{f"gated_{gate}": like("gated_experts", gate=gate, **gates) for gate in ("prompt", "token", "block")},
        }

    def given(self) -> Study:
        """Experts are there, R each: what every upper level reaches with R completions more, and what it spends.

        That is at 3 R. Beside it what averaging, or mixing log-probabilities, makes of these experts (2 R), and of
        experts that the completions more trained further (3 R). What upper levels have at 2 R is over experts of two
        thirds of R each.
        """
        rows = {"averaged": self.soups, "mod": self.rows["mod"], **self.upper_levels(1 / 3)}
        return study("given", tasks([-0.8], HETEROGENEITIES), at_both_rates(rows), [2 * R, 3 * R], 3)

    def others(self) -> Study:
        """The whole roster of the family at an equal budget."""
        like = self.like_soups
        rows = {name: self.rows[name] for name in OTHERS} | {"rewarded_soups": self.soups, "mod": self.rows["mod"]}
        rows |= {f"merged_{merge}": like("merged_soups", merge=merge) for merge in ("factors", "peft_linear", "ties")}
        rows |= self.upper_levels()
        rows |= {
            "soups_stretched": like("rewarded_soups", stretch=1.5),
            "soups_own_start": like("rewarded_soups", start="own"),
            "mod_corrected": like("mod", correction="importance"),
            "probability_mixture": like("probability_mixture"),
        }
        return study("others", tasks([-0.8], HETEROGENEITIES), at_both_rates(rows), [EQUAL], 3)

    def levels(self) -> Study:
        """The same experts, of both learning rates, mixed at each level; at equal KL see `equal_kl.py`.

        Those under a gate, at the lower rate alone, are trained with three quarters of the completions, as the gate's
        count. Beside them is the mixture whose experts and gate learn together.
        """
        slower = self.soups["learning_rate"] / 2
        rows: dict[str, Row] = {
            "mixture_of_experts": self.mixture,
            "gate_slower": {**self.upper_levels()["gated_block"], "learning_rate": slower},
        }
        for rate, soups in (("", self.soups), ("_slower", self.like_soups("rewarded_soups", learning_rate=slower))):
            hidden = {**soups, "method": "hidden_mixing"}
            levels: dict[str, Row] = {
                "parameters": soups,
                "hidden": {**hidden, "block": 0},  # the model has two blocks, so no other is before the last
                "hidden_then_base": {**hidden, "block": 0, "continued": "base"},
                "hidden_last_before_norm": {**hidden, "block": -1},
                "hidden_last_after_norm": {**hidden, "block": -1, "norm": "after"},
                "log_probs": {**soups, "method": "mod"},
                "probabilities": {**soups, "method": "probability_mixture"},
            }
            rows |= {f"{level}{rate}": row for level, row in levels.items()}
        return study("levels", tasks(CORRELATIONS, HETEROGENEITIES), rows, [EQUAL], 5)

    def two_levels(self) -> Study:
        """Experts first against all at once, at equal totals."""
        first = {"experts": "single_objective", "start": "independent"}
        rows = {
            "joint": self.mixture,
            "joint_no_gate": {**self.mixture, "gate": "none"},
            "experts_then_joint": {**self.mixture, **first, "experts_share": 0.25},
            "half_experts_then_joint": {**self.mixture, **first, "experts_share": 0.5},
            "experts_then_gate": {**self.mixture, **first, "experts_share": 0.75, "trains": "gate"},
            "experts_alone": {**self.mixture, **first, "experts_share": 1, "gate": "none"},
        }
        return study("two-levels", tasks([-0.8], HETEROGENEITIES), rows, [R, 2 * R, 4 * R], 3)

    def context(self) -> Study:
        """What prompts and scalar feedback are worth where the preference depends on the prompt.

        Every gate and bandit that reads prompts has its twin that reads none. Those over experts of halves of the
        prompts share three quarters of the completions for these, at the lower rate, and learn from the rest.
        """
        slower = {"learning_rate": self.soups["learning_rate"] / 2}
        halves = self.like_soups("rewarded_soups", **slower, experts="split_experts")
        gated = {**self.mixture, **halves, "method": "mixture_of_experts", "gate": "prompt", "trains": "gate"}
        gated |= {"start": "shared", "experts_share": 0.75, "gate_learning_rate": self.mixture["learning_rate"]}
        bandit = {**halves, "method": "contextual_bandit", "bandit_share": 0.25}
        rows: dict[str, Row] = {f"joint_{gate}": {**self.mixture, "gate": gate} for gate in ("none", "prompt", "block")}
        rows |= {"split_none": halves, "split_gate": gated, "split_bandit": bandit}
        rows |= {
            f"{name}_blind": {**rows[name], "context": "blind"}
            for name in ("joint_prompt", "joint_block", "split_gate", "split_bandit")
        }
        rows |= at_both_rates({"linear": self.rows["linear_equal"]})
        rows = {
            f"{name}_{each}": {**row, "feedback": each} for each in ("told", "utility") for name, row in rows.items()
        }
        rows |= at_both_rates({"linear_oracle": {**self.rows["linear_equal"], "feedback": "oracle"}})
        both = tasks([-0.8], [0.5], context=0.6) + tasks([-0.8], [0.5])  # rewards depend on the prompt, too
        alone = tasks([-0.8], [0.0], context=0.6)
        found = study("context", both + alone, rows, BUDGETS[:3], 3)
        apart = {"context_alone_from_0": parts(alone, 3)["competing_from_0"]}  # a part takes at most 45 minutes
        return {**found, "parts": parts(both, 3) | apart}


NAMES = (
    "yardstick", "main", "equal", "eleven", "wide", "support", "controls", "three", "three_yardstick", "three_equal",
    "others", "levels", "two_levels", "given", "context",
)  # fmt: skip


def main() -> int:
    """Read the sweeps' folders and write the studies; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", help="folders of finished sweeps, or a chosen.json")
    chosen: dict[str, Choice] = {}
    sources: list[Path] = parser.parse_args().sources
    try:
        for label, each in (pair for source in sources for pair in load_choices(source).items()):
            if label not in chosen or each.score > chosen[label].score:
                chosen[label] = each
    except ParetuneError as error:
        print(f"studies: {error}", file=sys.stderr)
        return 2
    for folder in (source for source in sources if source.is_dir()):
        name = load_study(folder / "study.yaml").name.removeprefix("meta-policy-").replace("-", "_")
        write_points(folder, DATA / f"{name}.csv")
    save_choices(chosen, DATA / "chosen.json")
    made = Studies(chosen)
    head = "# Written by recipes/meta_policy/studies.py from the sweeps: do not edit.\n"
    for name in NAMES:
        if not chosen.keys() >= {*SWEPT.get(name, ())}:
            print(f"studies: {name}.yaml is not written before sweep_{name}.yaml was run", file=sys.stderr)
            continue
        (HERE / f"{name}.yaml").write_text(head + to_yaml(getattr(made, name)()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
