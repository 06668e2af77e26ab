"""The decoder of fields at the rate of the CPU recipes."""

import pytest
import torch

from whence.nets.autoencoder import FieldDecoder, KLAutoencoder


@pytest.mark.parametrize(("shape", "patch"), [((16, 20), 1), ((8, 10, 8), 2)])
def test_its_first_steps_do_not_leap(shape, patch):
    torch.manual_seed(0)
    dims = len(shape)
    decoder = FieldDecoder(KLAutoencoder(dims, 1, (16, 32), 4, patch=patch))
    latents, wanted = torch.randn(1, 4, *shape), torch.full((1, dims, *(2 * patch * n for n in shape)), 0.1)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=2e-3)
    found = []
    for _ in range(6):
        apart = (decoder(latents) - wanted).square().mean()
        optimizer.zero_grad()
        apart.backward()
        optimizer.step()
        found.append(float(apart.detach()) / 0.01)
    # Shares of what no motion leaves; a field that is all of the answer leapt to 3 of them, in 3D to 150.
    assert max(found) < 1.5
    assert found[-1] < 0.5
