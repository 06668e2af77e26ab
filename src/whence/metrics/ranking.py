"""How well a map ranks voxels."""

from __future__ import annotations

import torch


def area_under_curve(score: torch.Tensor, positive: torch.Tensor) -> float:
    """Area under the ROC curve of scores (any shape) against a bool mask: 0.5 is chance, NaN undefined.

    Ties count half (Mann-Whitney).
    """
    from scipy.stats import rankdata

    flags = positive.bool().flatten().cpu().numpy()
    count, others = int(flags.sum()), int((~flags).sum())
    if not count or not others:
        return float("nan")
    ranks = rankdata(score.flatten().cpu().double().numpy())
    return float((ranks[flags].sum() - count * (count + 1) / 2) / (count * others))
