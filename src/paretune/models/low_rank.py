"""Sums of low-rank experts, of what they add to each layer: exact at the sum of their ranks, or brought back to one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paretune.core.errors import ShapeError


def side_by_side(downs: Tensor, ups: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors of the weighed sum of deltas, `sum_n w_n B_n A_n`, exactly, at the sum of the ranks.

    Args:
        downs: A of each, `[N, r, in]`.
        ups: B of each, `[N, out, r]`.
        weights: `[N]`, on the scale of the sum.

    Returns:
        A `[N r, in]` and B `[out, N r]`.

    Example:
        >>> downs, ups = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([[[2.0]], [[3.0]]])
        >>> down, up = side_by_side(downs, ups, torch.tensor([0.5, 1.0]))
        >>> up @ down
        tensor([[1., 3.]])
    """
    return downs.flatten(0, 1), (ups * weights[:, None, None]).permute(1, 0, 2).flatten(1)


def nearest_factors(delta: Tensor, rank: int) -> tuple[Tensor, Tensor, float, float]:
    """Return factors of the matrix of a rank that is nearest to a dense one, in the Frobenius norm.

    Args:
        delta: `[out, in]`.
        rank: r; where the matrix has no so many rows and columns, the rest of the factors is 0 and they are exact.

    Returns:
        A `[r, in]`, B `[out, r]`, the energy (squared Frobenius norm) of the matrix, and how much of it was discarded.

    Source:
        Eckart and Young 1936.
    """
    left, values, right = torch.linalg.svd(delta.double(), full_matrices=False)
    width, energies = min(rank, len(values)), values.square()
    down = torch.zeros(rank, delta.shape[1], dtype=torch.float64, device=delta.device)
    up = torch.zeros(delta.shape[0], rank, dtype=torch.float64, device=delta.device)
    root = values[:width].sqrt()
    down[:width], up[:, :width] = root[:, None] * right[:width], left[:, :width] * root
    return down.to(delta.dtype), up.to(delta.dtype), float(energies.sum()), float(energies[width:].sum())


def average_deltas(downs: Tensor, ups: Tensor) -> tuple[Tensor, Tensor, float, float]:
    """Average `B A` of N experts of one rank in one layer, as the nearest factors of that rank.

    The average of N deltas has rank up to N r. Where the experts share A, the average of B is exact and A stays. Else
    the r largest singular values are kept, which is exact where no more differ from 0 and the nearest matrix of rank r
    in the Frobenius norm where they do. Rows of the new A are orthogonal and as long as the experts' on average, so
    that it learns on as they do; factors of equal norm would start with almost no A where deltas are small.

    Args:
        downs: A of each, `[N, r, in]`.
        ups: B of each, `[N, out, r]`.

    Returns:
        A `[r, in]`, B `[out, r]`, the energy (squared Frobenius norm) of the average, and how much of it was discarded.

    Source:
        Eckart and Young 1936, on the factors' QR decompositions.
    """
    count, rank = downs.shape[0], downs.shape[1]
    if bool((downs == downs[:1]).all()):
        up = ups.double().mean(dim=0)
        energy = float((up @ downs[0].double()).square().sum())
        return downs[0].clone(), up.to(ups.dtype), energy, 0.0
    left, left_core = torch.linalg.qr(ups.double().permute(1, 0, 2).flatten(1) / count)  # [out, q], [q, N r]
    right, right_core = torch.linalg.qr(downs.double().flatten(0, 1).mT)  # [in, p], [p, N r]
    turned, values, other = torch.linalg.svd(left_core @ right_core.mT, full_matrices=True)
    width = min(rank, len(values))
    length = downs.double().norm(dim=2).mean()
    down = torch.zeros(rank, downs.shape[2], dtype=torch.float64)
    free = min(rank, other.shape[0])  # directions beyond the average's rank are free: B is 0 there
    down[:free] = length * (right @ other.mT[:, :free]).mT
    up = torch.zeros(ups.shape[1], rank, dtype=torch.float64)
    up[:, :width] = left @ turned[:, :width] * values[:width] / length
    energies = values.square()
    return down.to(downs.dtype), up.to(ups.dtype), float(energies.sum()), float(energies[width:].sum())


def average_experts(rows: Tensor, layers: Sequence[tuple[int, int]], rank: int) -> tuple[Tensor, float]:
    """Average experts of one bank layer by layer, and say what the rank costs.

    Args:
        rows: Their parameters, `[N, P]`, laid out as `ExpertBank.flat`: for each layer A, then B.
        layers: Input and output size of each layer.
        rank: Of the experts, and of the average.

    Returns:
        Parameters of the average, `[P]`, and the share of the energy of all layers that was discarded.

    Raises:
        ShapeError: If the rows are no experts of these layers.
    """
    size = rank * sum(inputs + outputs for inputs, outputs in layers)
    if rows.ndim != 2 or rows.shape[1] != size:
        raise ShapeError(
            f"rows must be experts of {size} parameters, got shape {list(rows.shape)}. Take them from a bank of these "
            "layers and this rank."
        )
    parts, energy, lost, start = [], 0.0, 0.0, 0
    for inputs, outputs in layers:
        middle, end = start + rank * inputs, start + rank * (inputs + outputs)
        downs, ups = rows[:, start:middle].view(-1, rank, inputs), rows[:, middle:end].view(-1, outputs, rank)
        down, up, own, discarded = average_deltas(downs, ups)
        parts += [down.flatten(), up.flatten()]
        energy, lost, start = energy + own, lost + discarded, end
    return torch.cat(parts), lost / energy if energy else 0.0
