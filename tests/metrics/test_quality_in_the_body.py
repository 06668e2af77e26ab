"""NMI and MS-SSIM of the body: background, wherever it is, has no part in them."""

import pytest
import torch
from scipy import ndimage

from whence.losses import normalised_mutual_information
from whence.metrics import image_quality
from whence.metrics.image import _scales


def pair(shape):
    noise = torch.rand(2, 1, 1, *shape, generator=torch.Generator().manual_seed(0))
    a, b = (torch.from_numpy(ndimage.gaussian_filter(n[0, 0].numpy(), 1.5))[None, None] for n in noise)
    a, b = ((x - x.min()) / (x.max() - x.min()) for x in (a, b))
    return a, 0.7 * a + 0.3 * b


@pytest.mark.parametrize("shape", [(40, 36), (26, 30, 28)])
def test_background_around_an_image_changes_nothing(shape):
    a, b = pair(shape)
    whole = image_quality(a, b, torch.ones_like(a, dtype=torch.bool))
    margins = [7, 20, 12, 3, 9, 30][: 2 * len(shape)]
    padded = [torch.nn.functional.pad(x, margins) for x in (a, b)]
    mask = torch.nn.functional.pad(torch.ones_like(a), margins) > 0
    found = image_quality(*padded, mask)
    assert set(found) == set(whole)
    for name in ("ms_ssim", "nmi", "psnr", "mae"):
        assert found[name] == pytest.approx(whole[name], abs=1e-5), name
    # Their agreement on nothing would raise both.
    everywhere = image_quality(*padded, torch.ones_like(mask))
    assert everywhere["ms_ssim"] > whole["ms_ssim"]


def test_nmi_of_a_ragged_body_is_that_of_its_voxels():
    a, b = pair((40, 36))
    mask = a > a.median()
    line = [(x[mask] * 2 - 1)[None, None] for x in (a, b)]
    expected = float(normalised_mutual_information(*line, bins=32))
    assert image_quality(a, b, mask)["nmi"] == pytest.approx(expected, abs=1e-5)


def test_several_channels_share_the_mask():
    a, b = pair((40, 36))
    mask = torch.zeros_like(a, dtype=torch.bool)
    mask[..., 5:35, 4:33] = True
    one, two = image_quality(a, b, mask), image_quality(a.repeat(1, 2, 1, 1), b.repeat(1, 2, 1, 1), mask)
    for name, value in one.items():
        assert two[name] == pytest.approx(value, abs=1e-5), name


def test_a_body_too_thin_for_two_scales_has_no_ms_ssim():
    a, b = pair((40, 36))
    mask = torch.zeros_like(a, dtype=torch.bool)
    mask[..., 10:30, 12:13] = True
    assert set(image_quality(a, b, mask)) == {"ssim", "psnr", "nmi", "mae"}


@pytest.mark.parametrize(("side", "scales"), [(22, 1), (24, 2), (96, 3), (98, 3), (99, 4), (176, 4), (192, 5)])
def test_as_many_scales_as_there_is_room_for(side, scales):
    """Every size has its MS-SSIM, also where halving leaves more than MONAI's rule does."""
    assert _scales(side, 11) == scales
    if scales == 1:
        return
    image = torch.rand((1, 1, side, side), generator=torch.Generator().manual_seed(0))
    found = image_quality(image, image, torch.ones((1, 1, side, side), dtype=torch.bool))
    assert found["ms_ssim"] == pytest.approx(1, abs=1e-5)
