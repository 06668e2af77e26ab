"""The case bank: the nearest masks are those of the greatest IoU, and neither writers nor kills break it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from whence.errors import InputError
from whence.retrieval import Bank, BankSpace, Case, Entry, Manifest, Row, add, build, overlap, remove, thumbnail
from whence.retrieval import writing as writing_module
from whence.space import Grid, Volume

pytest.importorskip("usearch")
SPACE = BankSpace(Grid.regular((40, 48), 2.0))
SETTINGS = Manifest(SPACE, images=True, approximate=True)


def blob(seed, space=SPACE):
    """A mask (*shape) of one ellipse, placed and sized by a seed."""
    random = np.random.default_rng(seed)
    shape = np.array(space.grid.shape)
    centre, radii = shape * random.uniform(0.3, 0.7, len(shape)), shape * random.uniform(0.06, 0.2, len(shape))
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return (((points - centre) / radii) ** 2).sum(axis=-1) < 1


def volume(mask, grid=SPACE.grid):
    return Volume(torch.from_numpy(np.ascontiguousarray(mask))[None, None].to(torch.uint8), grid)


def entry(seed, name=None):
    random = np.random.default_rng(1000 + seed)
    image = random.standard_normal(16).astype(np.float32)
    case = Case(name or f"case{seed}", f"patient{seed // 2}", {"source": Path(f"/data/{seed}.nii.gz")}, {"age": seed})
    return Entry(case, SPACE.pack(volume(blob(seed))), image / np.linalg.norm(image))


def rows(seeds):
    return [Row(f"case{seed}", lambda seed=seed: [entry(seed)]) for seed in seeds]


def test_the_nearest_masks_are_those_of_the_greatest_overlap(tmp_path):
    bank = build(tmp_path / "bank", SETTINGS, rows(range(200)), chunk=64)
    assert (len(bank), len(bank.segments)) == (200, 4)
    for seed in range(200, 205):
        mask = blob(seed)
        true = [(mask & blob(k)).sum() / (mask | blob(k)).sum() for k in range(200)]
        best = sorted(true, reverse=True)[:15]
        found = bank.query(SPACE.pack(volume(mask)), 15)
        assert np.allclose([match.iou for match in found], best, atol=1e-6)
        assert np.allclose([match.similarity for match in found], best, atol=1e-6)
        assert [true[int(match.case.id[4:])] for match in found] == [match.iou for match in found]
        near = bank.query(SPACE.pack(volume(mask)), 15, approximate=True)
        assert len({match.case.id for match in near} & {match.case.id for match in found}) >= 13
    case = found[0].case
    assert case.files["source"] == Path(f"/data/{case.id[4:]}.nii.gz")
    assert case.facts == {"age": int(case.id[4:])}


def test_a_query_never_finds_its_own_patient_nor_what_was_removed(tmp_path):
    bank = build(tmp_path / "bank", SETTINGS, rows(range(20)))
    query = entry(6)
    assert bank.query(query.bits, 1)[0].case.id == "case6"
    others = bank.query(query.bits, 30, patient="patient3")
    assert len(others) == 18
    assert "patient3" not in {match.case.patient for match in others}
    bank = remove(tmp_path / "bank", ["case6"])
    assert len(bank) == len(list(bank)) == 19
    for strategy in ("tumour", "image", "random"):
        found = bank.query(query.bits, 30, None, strategy, query.image, generator=torch.Generator().manual_seed(0))
        assert len(found) == 19
        assert "case6" not in {match.case.id for match in found}
    remove(tmp_path / "bank", [f"case{k}" for k in range(10) if k != 6])
    # As much is gone as is left: what is left is written anew.
    bank = Bank(tmp_path / "bank")
    assert (len(bank), bank.info()["removed"], bank.info()["patients"]) == (10, 0, 5)
    assert [case.id for case in bank] == [f"case{k}" for k in range(10, 20)]
    assert bank.query(entry(12).bits, 1)[0].iou == 1


def test_the_other_strategies(tmp_path):
    bank = build(tmp_path / "bank", SETTINGS, rows(range(30)))
    query = entry(99)
    similar = [float(query.image @ entry(k).image) for k in range(30)]
    found = bank.query(query.bits, 5, strategy="image", image=query.image)
    assert [match.case.id for match in found] == [f"case{k}" for k in np.argsort(similar)[::-1][:5]]
    assert found[0].iou == pytest.approx(overlap(query.bits, entry(int(found[0].case.id[4:])).bits))
    drawn = [
        [m.case.id for m in bank.query(count=5, strategy="random", generator=torch.Generator().manual_seed(seed))]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 5


def test_masks_of_other_grids():
    """One tumour on other voxels of one world; what lies elsewhere is refused."""
    space = BankSpace(Grid.regular((40, 48, 36), 3.0))
    points = np.stack(np.meshgrid(*map(np.arange, (40, 48, 36)), indexing="ij"), axis=-1)
    mask = ((points - (18, 25, 16)) ** 2).sum(axis=-1) < 81
    bits = space.pack(volume(mask, space.grid))
    assert np.array_equal(space.unpack(bits), mask)
    # Finer voxels, other axes, running backwards.
    fine = Grid(
        (144, 120, 108), np.array([[0, 1.0, 0, -1], [-1.0, 0, 0, 142.0], [0, 0, 1.0, -1], [0, 0, 0, 1]], dtype=float)
    )
    there = fine.to_world(np.stack(np.meshgrid(*map(np.arange, fine.shape), indexing="ij"), axis=-1))
    finer = (np.linalg.norm(there - space.grid.to_world(np.array([18.0, 25.0, 16.0])), axis=-1) < 27).astype(np.uint8)
    assert overlap(space.pack(volume(finer, fine)), bits) > 0.93
    speck = np.zeros((144, 120, 108), np.uint8)
    speck[60, 60, 50] = 1
    assert space.unpack(space.pack(volume(speck, fine))).sum() >= 1
    far = Grid(fine.shape, fine.affine + np.array([[0, 0, 0, 500.0], [0] * 4, [0] * 4, [0] * 4]))
    for given, reason in [
        (volume(finer, far), "0% of the mask lies in the bank's field of view"),
        (volume(0 * finer, fine), "the mask is empty"),
        (volume(finer[0], Grid.regular(finer[0].shape)), "the mask is 2D with 1 channel"),
    ]:
        with pytest.raises(InputError, match=reason):
            space.pack(given)


def test_thumbnails_know_an_image_in_other_intensities_and_voxels():
    smooth = torch.nn.functional.interpolate(
        torch.rand((1, 1, 6, 7), generator=torch.Generator().manual_seed(0)), (64, 72)
    )
    grid = Grid.regular((64, 72))
    image, other = Volume(smooth, grid), Volume(smooth.flip(2), grid)
    seen = [thumbnail(shown, grid) for shown in (image, image.with_tensor(300 * smooth + 20), other)]
    assert np.linalg.norm(seen[0]) == pytest.approx(1, abs=1e-5)
    assert seen[0] @ seen[1] > 0.999
    assert seen[0] @ seen[2] < 0.6
    assert not thumbnail(image.with_tensor(torch.ones_like(smooth)), grid).any()


def test_what_cannot_be_done_is_said_and_changes_nothing(tmp_path):
    folder = tmp_path / "bank"
    with pytest.raises(InputError, match="expected a case bank in"):
        Bank(folder)
    with pytest.raises(InputError, match="no case for a bank"):
        build(folder, SETTINGS, [])
    build(folder, replace(SETTINGS, images=False), rows(range(4)))
    with pytest.raises(InputError, match="has a case 'case2' already"):
        add(folder, rows([7, 2]), chunk=1)
    with pytest.raises(InputError, match="expected a case bank in"):
        remove(tmp_path / "typo", ["case1"])
    assert not (tmp_path / "typo").exists()
    with pytest.raises(InputError, match="has no case 'case9'"):
        remove(folder, ["case1", "case9"])
    bank = Bank(folder)
    assert {case.id for case in bank} == {"case0", "case1", "case2", "case3"}
    for options, reason in [
        ({"strategy": "image", "image": np.ones(16)}, "was built without images"),
        ({"strategy": "tumour"}, "retrieval by tumour compares masks"),
        ({"strategy": "nearest"}, "unknown strategy 'nearest'"),
        ({"count": 0}, "expected one case or more"),
    ]:
        with pytest.raises(InputError, match=reason):
            bank.query(**options)
    whole = (folder / "bank.json").read_text()
    for text, reason in [
        ("{}", "no list of a bank's parts"),
        (whole.replace('"removed": {}', '"removed": []'), "no list of a bank's parts"),
        (whole.replace('"version": 1', '"version": 2'), r"bank.json is of version 2; expected 1"),
    ]:
        (folder / "bank.json").write_text(text)
        with pytest.raises(InputError, match=reason):
            Bank(folder)
    (folder / "bank.json").write_text(whole)
    torn = folder / bank.manifest.segments[0] / "patients.npy"
    np.save(torn, np.load(torn)[:-1])
    with pytest.raises(InputError, match=r"is torn: its files hold \[3, 4\] cases"):
        Bank(folder)


def test_a_stopped_build_goes_on_and_hides_until_it_is_whole(tmp_path):
    folder, read = tmp_path / "bank", []
    build(folder, SETTINGS, rows([100, 101]))

    def reading(seeds, stop=None):
        for seed in seeds:
            if seed == stop:
                raise KeyboardInterrupt
            yield Row(f"case{seed}", lambda seed=seed: (read.append(seed), [entry(seed)])[1])

    with pytest.raises(KeyboardInterrupt):
        build(folder, SETTINGS, reading(range(30), 20), chunk=8)
    assert [case.id for case in Bank(folder)] == ["case100", "case101"]
    read.clear()
    bank = build(folder, SETTINGS, reading(range(30)), chunk=8)
    assert read == list(range(16, 30))
    assert [case.id for case in bank] == [f"case{k}" for k in range(30)]
    assert {p.name for p in folder.iterdir()} == {"bank.json", ".lock", *bank.manifest.segments}
    # What was begun of one table is no part of another's.
    with pytest.raises(KeyboardInterrupt):
        build(folder, replace(SETTINGS, origin="one"), reading(range(30), 20), chunk=8)
    other = build(folder, replace(SETTINGS, origin="other"), reading(range(10, 16)), chunk=8)
    assert [case.id for case in other] == [f"case{k}" for k in range(10, 16)]


def test_many_small_additions_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(writing_module, "MOST", 3)
    folder = tmp_path / "bank"
    build(folder, SETTINGS, rows([0]))
    for seed in range(1, 8):
        bank = add(folder, rows([seed]))
        assert len(bank.segments) <= 3
    assert [case.id for case in bank] == [f"case{k}" for k in range(8)]
    assert bank.query(entry(5).bits, 1)[0].case.id == "case5"


def test_one_writer_at_a_time(tmp_path):
    build(tmp_path / "bank", SETTINGS, rows([0]))
    with writing_module._writing(tmp_path / "bank"), pytest.raises(InputError, match="another process is writing"):
        add(tmp_path / "bank", rows([1]))
    assert len(add(tmp_path / "bank", rows([1]))) == 2


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_bank import SETTINGS, rows
from whence.retrieval import add, build
{work}
"""


def writer(work):
    script = WRITER.format(tests=str(Path(__file__).parent), work=work)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills by SIGKILL")
def test_a_kill_during_an_addition_loses_nothing(tmp_path):
    folder = tmp_path / "bank"
    build(folder, SETTINGS, rows(range(5)))
    before = {case.id for case in Bank(folder)}
    work = f"print('ready', flush=True)\nfor k in range(100, 5000): add({str(folder)!r}, rows([k]))"
    for delay in (0.0, 0.05, 0.13, 0.21):
        process = writer(work.replace("100", str(100 + len(before))))
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        bank = Bank(folder)
        after = {case.id for case in bank}
        assert before <= after
        assert all(match.iou > 0 for match in bank.query(entry(3).bits, 1))
        before = after
    assert len(before) > 5
    # The next writer takes the dead one's lock and its leavings away.
    bank = add(folder, rows([9000]))
    segments = {path.name for path in folder.glob("segment-*")}
    assert segments == set(bank.manifest.segments)


def test_readers_during_builds_see_one_bank_or_the_other(tmp_path):
    folder = tmp_path / "bank"
    build(folder, SETTINGS, rows(range(5)))
    work = (
        f"print('ready', flush=True)\nfor k in range(12): "
        f"build({str(folder)!r}, SETTINGS, rows(range(20) if k % 2 == 0 else range(5)), chunk=4)"
    )
    process, query = writer(work), entry(3)
    assert process.stdout.readline() == "ready\n"
    seen = set()
    while process.poll() is None:
        bank, again = Bank(folder), Bank(folder)
        for reader in (bank, again):
            found = {match.case.id for match in reader.query(query.bits, 50)}
            assert found in ({f"case{k}" for k in range(5)}, {f"case{k}" for k in range(20)})
            seen.add(len(found))
    assert process.returncode == 0
    assert seen == {5, 20}


def test_a_bank_moves_with_its_data(tmp_path):
    """Paths are kept as they run from the bank."""
    data = tmp_path / "here" / "data"
    data.mkdir(parents=True)
    case = Case("a", "p", {"source": data / "a.nii.gz"})
    build(tmp_path / "here" / "bank", SETTINGS, [Row("a", lambda: [replace(entry(0), case=case)])])
    os.rename(tmp_path / "here", tmp_path / "there")
    (found,) = Bank(tmp_path / "there" / "bank")
    assert found.files["source"] == tmp_path / "there" / "data" / "a.nii.gz"
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "far" / "away" / "link").symlink_to(tmp_path / "there" / "bank", target_is_directory=True)
    (linked,) = Bank(tmp_path / "far" / "away" / "link")
    assert linked.files == found.files
