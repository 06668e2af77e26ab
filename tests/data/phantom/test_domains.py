"""Domain phantoms: two populations and devices, a partner of exactly known correspondence, unpaired tables."""

import numpy as np
import pytest

from whence.data import read_pairs
from whence.data.phantom import domains, phantom_options, write_phantom
from whence.errors import InputError
from whence.field import compose, jacobian_determinant, warp
from whence.io import read_displacement, read_labels

ANATOMIES = sorted(domains.ANATOMIES)


def dice(a, b, labels):
    shares = [2 * ((a == k) & (b == k)).sum() / max(1, (a == k).sum() + (b == k).sum()) for k in labels]
    return float(np.mean(shares))


@pytest.fixture(scope="module", params=ANATOMIES)
def case(request):
    return request.param, domains.make_case(3, 0, 96, 2, anatomy=request.param)


def test_the_partner_is_where_the_displacement_says(case):
    anatomy, made = case
    labels = sorted(domains.label_names(anatomy, "t2"))
    truth, still = made.target_labels.numpy(), made.source_labels.numpy()
    assert set(labels) <= set(np.unique(truth)) | {0}
    carried = warp(made.source_labels, made.displacement, mode="label").numpy()
    # What voxels of this size can hold of thin layers and folds.
    assert dice(carried, truth, labels) > 0.9
    assert dice(carried, truth, labels) > dice(still, truth, labels) + 0.04
    for field in (made.displacement, made.inverse):
        assert float(jacobian_determinant(field).min()) > 0.05
    inner = (0, 0, slice(8, -8), slice(8, -8))
    # There and back, in voxels of the grid.
    error = compose(made.displacement, made.inverse).tensor.square().sum(dim=1, keepdim=True).sqrt()
    assert float(error[inner].mean()) < 0.05


def test_looks_differ_and_people_too(case):
    anatomy, made = case
    other = domains.make_case(3, 1, 96, 2, anatomy=anatomy)
    assert (other.domain, other.target, other.displacement) == ("target", None, None)
    # The same tissue has another brightness relative to the others.
    levels = []
    for image, labels in ((made.source, made.source_labels), (made.target, made.target_labels)):
        found = [image.numpy()[labels.numpy() == k].mean() for k in sorted(domains.label_names(anatomy, "t2"))]
        levels.append(np.argsort(found).tolist())
    assert levels[0] != levels[1]
    again = domains.make_case(3, 0, 96, 2, anatomy=anatomy)
    assert np.array_equal(again.source.numpy(), made.source.numpy())
    assert np.array_equal(again.displacement.tensor.numpy(), made.displacement.tensor.numpy())


def test_populations_differ_in_shape():
    """Ventricles of the older population are larger, walls of the second heart thicker, its retina too."""
    for anatomy, label, factor in (("brain", 1, 1.3), ("heart", 2, 1.15), ("oct", 6, 1.1)):
        sizes = {"source": [], "target": []}
        for index in range(12):
            made = domains.make_case(5, index, 64, 2, anatomy=anatomy)
            sizes[made.domain].append((made.source_labels.numpy() == label).sum())
        assert np.mean(sizes["target"]) > factor * np.mean(sizes["source"])


@pytest.mark.parametrize("anatomy", ANATOMIES)
def test_volumes(anatomy):
    made = domains.make_case(1, 0, 48, 3, anatomy=anatomy)
    assert made.source.tensor.shape == (1, 1, 48, 48, 48)
    assert float(jacobian_determinant(made.displacement).min()) > 0.05
    carried = warp(made.source_labels, made.displacement, mode="label").numpy()
    labels = sorted(set(np.unique(made.target_labels.numpy())) - {0})
    assert len(labels) >= len(domains.label_names(anatomy, "t2")) - 1
    assert dice(carried, made.target_labels.numpy(), labels) > dice(
        made.source_labels.numpy(), made.target_labels.numpy(), labels
    )


def test_tables_with_and_without_partners(tmp_path):
    out = tmp_path / "oct"
    table = read_pairs(write_phantom("domains", 16, 32, out, anatomy="oct"), columns=("source",))
    assert [row.conditions["domain"] for row in table] == ["source", "target"] * 8
    for row in table:
        partner = row.conditions["domain"] == "source" and row.split != "train"
        assert ("target" in row.files) == ("displacement" in row.files) == partner
    paired = read_pairs(out / "paired.csv")
    assert {row.conditions["domain"] for row in paired} == {"source"}
    assert len(paired) == 8
    row = paired.rows[0]
    assert read_displacement(row.path("displacement")).grid.same_as(read_labels(row.path("target_labels")).grid)
    assert table.label_names["1"] == "nerve fibre layer"
    # The same command again finds all there.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    write_phantom("domains", 16, 32, out, anatomy="oct")
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    assert "oct" in phantom_options()["anatomy"]
    with pytest.raises(InputError, match="anatomy of phantom 'domains' is 'knee'"):
        write_phantom("domains", 2, 32, tmp_path / "knee", anatomy="knee")
