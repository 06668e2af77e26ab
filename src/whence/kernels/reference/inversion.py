"""Where a displacement sends given points from."""

from __future__ import annotations

import torch

from whence.kernels.reference.sampling import sample

# A map whose determinant is not larger is too flat for Newton's step; a step shorter than the smallest gives up.
FLAT, SMALLEST = 1e-3, 2.0**-10


def solve(
    displacement: torch.Tensor,
    targets: torch.Tensor,
    tolerance: float = 1e-3,
    iterations: int = 100,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """Coordinates x (B, D, *out) with x + u(x) = ``targets`` (B, D, *out), all in voxels of u's lattice.

    Newton's method from ``start``, or from the targets, each point on its own: a step that does not bring a point
    nearer is halved, and where the map is flat the step is that of the fixed point x <- targets - u(x) (Chen et al.
    2008). A point is done when it is off by no more than ``tolerance`` voxels, after ``iterations`` evaluations, or
    when ever shorter steps bring it no nearer. Where u folds there may be several answers or none, and a point gets
    one of them or the nearest that was found; where u is unknown, NaN. Gradients are those of the exact
    solution, dx = (I + Du)^-1 (d targets - du(x)).
    """
    fixed, wanted = displacement.detach(), targets.detach()
    batch = max(fixed.shape[0], wanted.shape[0])
    wanted = wanted.expand(batch, *wanted.shape[1:])
    x = found = wanted if start is None else start.detach().expand_as(wanted)
    step = x.new_ones((batch, 1, *x.shape[2:]))
    least, direction = torch.full_like(step, torch.inf), torch.zeros_like(x)
    for _ in range(iterations):
        residual, slopes = _residual(fixed, wanted, x)
        size = residual.square().sum(dim=1, keepdim=True).sqrt()
        nearer = size < least
        found, least = torch.where(nearer, x, found), torch.where(nearer, size, least)
        direction = torch.where(nearer, _newton(slopes, residual), direction)
        step = torch.where(nearer, 1.0, 0.5 * step)
        moving = (least > tolerance) & (step >= SMALLEST)
        if not bool(moving.any()):
            break
        x = torch.where(moving, found + step * direction, found)
    found = found.masked_fill(least.isinf(), torch.nan)
    if not (torch.is_grad_enabled() and (displacement.requires_grad or targets.requires_grad)):
        return found
    # What is added is nothing but the gradient of one exact Newton step.
    _, slopes = _residual(fixed, wanted, found)
    change = _newton(slopes, targets - sample(displacement, found) - found)
    return found + change - change.detach()


def _residual(displacement: torch.Tensor, targets: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """targets - x - u(x), (B, D, *out), and the slopes of x + u(x), (B, D, D, *out), of each component by each axis."""
    dims = x.shape[1]
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        moved = at + sample(displacement, at)
        rows = [torch.autograd.grad(moved[:, d].sum(), at, retain_graph=True)[0] for d in range(dims)]
    return targets - moved.detach(), torch.stack(rows, dim=1)


def _newton(slopes: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """The step that undoes a residual where the map is linear; the residual itself where it is too flat."""
    matrices, right = slopes.movedim((1, 2), (-2, -1)), residual.movedim(1, -1)
    steep = torch.linalg.det(matrices) > FLAT
    straight = torch.eye(slopes.shape[1], dtype=slopes.dtype, device=slopes.device)
    matrices = torch.where(steep[..., None, None], matrices, straight)
    return torch.linalg.solve(matrices, right[..., None])[..., 0].movedim(-1, 1)
