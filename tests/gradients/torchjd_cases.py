"""Write what TorchJD's CAGrad and UPGrad return, whose solvers the tests do not ask for (some are GPL).

pip install torchjd cvxpy clarabel quadprog qpsolvers
python tests/gradients/torchjd_cases.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

CASES, C = 12, 0.4
FILE = Path(__file__).with_name("torchjd.json")


def main() -> None:
    """Write Jacobians `[3, 5]`, preferences `[3]`, and the vectors `[5]` that TorchJD makes of them."""
    from torchjd.aggregation import CAGrad, UPGrad

    draws = np.random.default_rng(0)
    cases = []
    for _ in range(CASES):
        jacobian, wanted = draws.standard_normal((3, 5)).round(3), draws.dirichlet(np.ones(3))
        given = torch.tensor(jacobian)
        cases.append(
            {
                "jacobian": jacobian.tolist(),
                "preference": wanted.tolist(),
                "cagrad": CAGrad(c=C)(given).tolist(),
                "upgrad": UPGrad(pref_vector=torch.tensor(wanted))(given).tolist(),
            }
        )
    FILE.write_text(json.dumps({"torchjd": version("torchjd"), "c": C, "cases": cases}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
