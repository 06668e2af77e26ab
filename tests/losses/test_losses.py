"""Losses against MONAI, scipy and what can be worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from whence.losses import (
    SIMILARITIES,
    bending_energy,
    gradient_energy,
    lsgan_discriminator,
    lsgan_generator,
    make_similarity,
    normalised_mutual_information,
)

SHAPES = {2: (40, 36), 3: (18, 16, 14)}


def image(dims, seed=0, channels=1, smooth=1.5):
    rng = np.random.default_rng(seed)
    array = np.stack([ndimage.gaussian_filter(rng.standard_normal(SHAPES[dims]), smooth) for _ in range(channels)])
    array = array / np.abs(array).max()
    return torch.from_numpy(array.astype(np.float32))[None]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_agreement_costs_least_and_gradients_flow(name, dims):
    measure = make_similarity(name)
    a, b = image(dims, 0), image(dims, 1)
    assert float(measure(a, a)) < float(measure(a, 0.9 * a + 0.1 * b)) < float(measure(a, b))
    moving = b.clone().requires_grad_(True)
    measure(a, moving).backward()
    assert torch.isfinite(moving.grad).all()
    assert float(moving.grad.abs().max()) > 0


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_mask_says_where_images_are_compared(name, dims):
    measure = make_similarity(name)
    a, b = image(dims, 0), image(dims, 1)
    mask = torch.zeros_like(a)
    # The images agree in one half and differ in the other.
    half, middle = SHAPES[dims][0] // 2, 4
    mask[:, :, : half - middle] = 1
    mixed = torch.where(torch.arange(SHAPES[dims][0]).reshape(-1, *[1] * (dims - 1)) < half, a, b)
    agreeing, everywhere = float(measure(a, mixed, mask)), float(measure(a, mixed))
    assert agreeing < everywhere
    assert agreeing == pytest.approx(float(measure(a, a, mask)), abs=0.01 * abs(float(measure(a, b))))
    whole = torch.ones_like(mask[:1])
    assert float(measure(a, b, whole)) == pytest.approx(float(measure(a, b)), rel=1e-4)
    moving = mixed.clone().requires_grad_(True)
    measure(a, moving, mask).backward()
    # The window of a measure reaches beyond the mask, not farther.
    assert float(moving.grad[:, :, half + middle :].abs().max()) == 0


def test_each_image_of_a_batch_weighs_the_same_under_masks_of_any_size():
    a, b = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    b[1] = 3
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, 0, 0, 0], mask[1] = 1, 1
    assert float(make_similarity("mse")(a, b, mask)) == pytest.approx((1 + 9) / 2)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_mixed_precision_is_left_outside(name):
    a, b = image(2, 0), image(2, 1)
    expected = SIMILARITIES[name](a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = SIMILARITIES[name](a.bfloat16(), b)
    # The rounding of the image itself remains: 2^-8 of its values.
    assert float(found) == pytest.approx(float(expected), abs=2e-2)
    assert torch.isfinite(found)


def test_ncc_is_blind_to_contrast_and_mse_is_not():
    a = image(2)
    assert float(make_similarity("ncc", window=9)(a, -0.9 * a + 0.05)) == pytest.approx(
        float(make_similarity("ncc", window=9)(a, a)), abs=0.02
    )
    assert float(make_similarity("mse")(a, -a)) == pytest.approx(float((2 * a).square().mean()))


def test_ncc_is_the_squared_correlation_of_a_window():
    """In the middle of an image as large as its window, the window's own correlation."""
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.uniform(-1, 1, (1, 1, 9, 9)).astype(np.float32)) for _ in range(2))
    from whence import kernels

    expected = np.corrcoef(a.flatten(), b.flatten())[0, 1] ** 2
    assert float(kernels.local_correlation(a, b, 9)[0, 0, 4, 4]) == pytest.approx(expected, rel=1e-3)


def test_nmi_of_identical_and_of_independent_images():
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.uniform(-1, 1, (1, 1, 256, 256)).astype(np.float32)) for _ in range(2))
    assert float(normalised_mutual_information(a, b, bins=16)) < 0.01
    # Two values share one bit; the Parzen window adds its own entropy h to each image: NMI = log 2 / (log 2 + h).
    two = torch.where(torch.arange(256) % 2 == 0, 0.6, -0.6).expand_as(a)
    same = float(normalised_mutual_information(two, two, bins=32))
    t = 0.2  # both values lie a fifth of a bin from a bin's centre
    window = np.array([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    h = -float((window * np.log(window)).sum())
    assert same == pytest.approx(math.log(2) / (math.log(2) + h), rel=1e-3)
    assert float(normalised_mutual_information(two, -two, bins=32)) == pytest.approx(same, rel=1e-4)
    assert float(normalised_mutual_information(a, a.square(), bins=32)) > 0.4


def test_mutual_information_of_a_noisy_bit():
    """A bit flipped with probability p shares log 2 - H(p) nats; Parzen windows add only what is independent."""
    rng = np.random.default_rng(0)
    a = rng.random(200_000) < 0.5
    for p in (0.0, 0.1, 0.3):
        b = a ^ (rng.random(a.size) < p)
        x, y = (torch.from_numpy(np.where(v, 0.6, -0.6).astype(np.float32)).reshape(1, 1, 400, 500) for v in (a, b))
        entropy = 0 if p == 0 else -p * math.log(p) - (1 - p) * math.log(1 - p)
        assert -float(make_similarity("mi")(x, y)) == pytest.approx(math.log(2) - entropy, abs=0.01)


def test_mutual_information_beside_monai():
    from monai.losses import GlobalMutualInformationLoss

    a, b = (image(2, 0) + 1) / 2, (image(2, 1) + 1) / 2
    b = 0.7 * a.square() + 0.3 * b
    theirs = GlobalMutualInformationLoss(kernel_type="b-spline", num_bins=32)
    ours = make_similarity("mi", bins=32)
    found = []
    for moving in (a, b, b.flip(2)):
        low, high = moving.min(), moving.max()
        stretched = (moving - low) / (high - low)
        reference = (a - a.min()) / (a.max() - a.min())
        found.append((float(ours(stretched * 2 - 1, reference * 2 - 1)), float(theirs(moving, a))))
    mine, monai = zip(*found, strict=True)
    assert sorted(mine) == list(mine)
    assert sorted(monai) == list(monai)
    # Theirs spreads one image over its bins and counts the other sharply; spreading both lowers the estimate.
    assert all(0 <= x - y < 0.3 for x, y in found)


def test_nmi_within_a_mask_ignores_the_rest():
    a, b = image(2, 0), image(2, 1)
    mask = torch.zeros(1, 1, *SHAPES[2], dtype=torch.bool)
    mask[..., :20, :] = True
    changed = b.clone()
    changed[..., 20:, :] = 0.3
    first, second = (float(normalised_mutual_information(a, x, mask, 16)) for x in (b, changed))
    assert first == pytest.approx(second, abs=1e-6)


def test_mind_is_blind_to_scale_and_offset():
    a = image(3, 0)
    measure = make_similarity("mind")
    assert float(measure(a, 0.5 * a + 0.3)) < 0.02 * float(measure(a, image(3, 1)))


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("love", {}, "unknown similarity 'love'"),
        ("ncc", {"window": 4}, "odd"),
        ("ncc", {"window": 1}, "at least 3"),
        ("nmi", {"bins": 4}, "at least 5 bins"),
    ],
)
def test_options_out_of_range(name, options, match):
    with pytest.raises(ValueError, match=match):
        make_similarity(name, **options)


@pytest.mark.parametrize("dims", [2, 3])
def test_energies_of_a_quadratic_field(dims):
    """u_0 = x^2/2 + x y: differences and second derivatives are known at every voxel."""
    shape = SHAPES[dims]
    x, y = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape[:2]), indexing="ij")
    u = (x**2 / 2 + x * y).reshape(shape[0], shape[1], *[1] * (dims - 2)).expand(shape)
    field = torch.zeros(1, dims, *shape, dtype=torch.float64)
    field[0, 0] = u
    # Forward differences: x + 1/2 + y along x, x along y.
    along_x = ((x + 0.5 + y)[:-1] ** 2).mean()
    along_y = (x[:, :-1] ** 2).mean()
    assert float(gradient_energy(field)) == pytest.approx(float(along_x + along_y))
    assert float(bending_energy(field)) == pytest.approx(1 + 2)
    assert float(bending_energy(3 * field)) == pytest.approx(27)
    assert float(gradient_energy(torch.ones_like(field))) == 0


def test_least_squares_adversarial_terms():
    real, fake = torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.2])
    assert float(lsgan_generator(fake)) == pytest.approx((1 + 0.64) / 2)
    assert float(lsgan_discriminator(real, fake)) == pytest.approx(0.5 * (0.25 / 2 + 0.04 / 2))
    assert float(lsgan_discriminator(torch.ones(3), torch.zeros(3))) == 0


@pytest.mark.parametrize("shape", [(6, 20), (4, 12, 12), (12, 12, 1), (3, 3, 3)])
def test_ncc_of_images_thinner_than_its_window(shape):
    """The same as in a wide image of which the window sees no more."""
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.uniform(-1, 1, (1, 1, *shape)).astype(np.float32)) for _ in range(2))
    b.requires_grad_(True)
    loss = make_similarity("ncc", window=9)(a, b)
    loss.backward()
    assert torch.isfinite(b.grad).all()
    from whence import kernels

    found = kernels.local_correlation(a, b.detach(), 9)
    for index in np.ndindex(*shape):
        cut = (0, 0, *(slice(max(0, i - 4), i + 5) for i in index))
        x, y = a[cut].flatten().double(), b.detach()[cut].flatten().double()
        covariance = (x * y).mean() - x.mean() * y.mean()
        product = x.var(unbiased=False) * y.var(unbiased=False)
        assert float(found[(0, 0, *index)]) == pytest.approx(float(covariance**2 / (product + 9e-6)), abs=1e-3)
