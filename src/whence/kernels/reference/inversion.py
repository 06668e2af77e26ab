"""Where a displacement sends given points from."""

from __future__ import annotations

import torch

from whence.kernels.reference.sampling import sample


def solve(
    displacement: torch.Tensor, targets: torch.Tensor, tolerance: float = 1e-3, iterations: int = 100
) -> torch.Tensor:
    """Coordinates x (B, D, *out) with x + u(x) = ``targets`` (B, D, *out), all in voxels of u's lattice.

    Fixed point x <- targets - u(x) (Chen et al. 2008), until no coordinate is off by more than ``tolerance``
    voxels, or for ``iterations``. Converges where u is a contraction; the step is halved wherever a point's
    error grows, which keeps stronger fields from oscillating. Where u folds there may be several answers or none, and
    versions may end at different ones.
    """
    x = targets - sample(displacement, targets)
    step = x.new_ones((x.shape[0], 1, *x.shape[2:]))
    previous = None
    for _ in range(iterations):
        change = targets - sample(displacement, x) - x
        size = change.square().sum(dim=1, keepdim=True).sqrt()
        if float(size.max()) <= tolerance:
            break
        if previous is not None:
            step = (step * (1 - 0.5 * (size > previous).to(x.dtype))).clamp_min(0.125)
        previous = size
        x = x + step * change
    return x
