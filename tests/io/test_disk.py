"""Files appear whole or not at all; weights and settings come back as they were."""

import errno
import os
import pickle

import numpy as np
import pytest
import torch

from whence import io
from whence.errors import InputError
from whence.field import Displacement
from whence.io.atomic import extension
from whence.space import Grid, Volume

VOLUME = Volume(torch.rand(1, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0)), Grid.regular((6, 6, 6)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.nii.gz", ".nii.gz"), ("p.mrk.json", ".mrk.json"), ("v1.2.PNG", ".png"), ("a.b.csv", ".csv"), ("a", "")],
)
def test_extension(name, expected):
    assert extension(name) == expected


@pytest.mark.parametrize("name", ["a.txt", "a.nii.gz", "v1.5 final.csv", "bare"])
def test_replacing_puts_the_file_in_its_place(name, tmp_path):
    path = tmp_path / "new" / "folder" / name
    with io.replacing(path) as partial:
        assert partial.parent == path.parent
        assert extension(partial) == extension(path) or not extension(path)
        assert partial != path
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interruption_leaves_what_was_there(error, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted():
        with io.replacing(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(InputError, match=r"cannot write .*a\.txt: No space left on device"), io.replacing(path):
        full_disk()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_disk_that_is_really_full(tmp_path):
    def overflowing():
        with io.replacing(tmp_path / "a.txt"), open("/dev/full", "w") as file:
            file.write("x" * 10)

    with pytest.raises(InputError, match="No space left on device"):
        overflowing()
    assert not list(tmp_path.iterdir())


def writers():
    displacement = Displacement.identity(VOLUME.grid)
    return {
        "a.nii.gz": lambda p: io.write(VOLUME, p),
        "a.nrrd": lambda p: io.write(VOLUME, p),
        "a.mha": lambda p: io.write_displacement(displacement, p),
        "a.h5": lambda p: io.write_displacement(displacement, p),
        "a.csv": lambda p: io.write_points(io.Points(np.zeros((1, 3)), ("a",)), p),
        "a.safetensors": lambda p: io.save_weights({"w": torch.zeros(3)}, p),
        "a.yaml": lambda p: io.save_yaml({"a": 1}, p),
        "a.json": lambda p: io.save_json({"a": 1}, p),
    }


@pytest.mark.parametrize("name", list(writers()))
def test_a_folder_that_cannot_be_made_is_named(name, tmp_path):
    # A file where a folder should be: refused even to the superuser, whom permissions do not stop.
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write") as caught:
        writers()[name](tmp_path / "file" / name)
    assert str(tmp_path / "file" / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="permissions do not stop this user")
def test_a_folder_without_the_right_to_write(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="Permission denied"):
            io.write(VOLUME, tmp_path / "a.nii.gz")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("name", list(writers()))
def test_a_folder_is_no_file(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="it is a folder"):
        writers()[name](tmp_path / name)


@pytest.mark.parametrize("name", ["a.nrrd", "a.h5", "a.nii.gz", "a.safetensors"])
def test_a_writer_that_fails_leaves_nothing(name, tmp_path, monkeypatch):
    import nibabel
    import safetensors.torch

    sitk = pytest.importorskip("SimpleITK")

    def failing(*args, **kwargs):
        raise RuntimeError("ITK ERROR: could not write\nwrite failed")

    monkeypatch.setattr(sitk, "WriteImage", failing)
    monkeypatch.setattr(sitk, "WriteTransform", failing)
    monkeypatch.setattr(nibabel, "save", full_disk)
    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    (tmp_path / name).write_text("old")
    with pytest.raises(InputError, match="cannot write"):
        writers()[name](tmp_path / name)
    assert (tmp_path / name).read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_writer_that_silently_writes_nothing_is_caught(tmp_path):
    with pytest.raises(InputError, match="nothing reached the disk"), io.replacing(tmp_path / "a.txt"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("exists", [False, True])
def test_a_staged_folder_arrives_as_one(exists, tmp_path):
    target = tmp_path / "deep" / "out"
    if exists:
        target.mkdir(parents=True)
        (target / "kept.txt").write_text("kept")
        (target / "a.txt").write_text("old")
    with io.staged_folder(target) as stage:
        (stage / "a.txt").write_text("new")
        (stage / "sub").mkdir()
        (stage / "sub" / "b.txt").write_text("b")
        assert not exists or (target / "a.txt").read_text() == "old"
    found = {str(p.relative_to(target)): p.read_text() for p in target.rglob("*") if p.is_file()}
    assert found == {"a.txt": "new", "sub/b.txt": "b"} | ({"kept.txt": "kept"} if exists else {})
    assert [p.name for p in target.parent.iterdir()] == ["out"]
    assert not [p for p in target.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_a_staged_folder_that_fails_changes_nothing(exists, error, tmp_path):
    target = tmp_path / "out"
    if exists:
        target.mkdir()
        (target / "a.txt").write_text("old")

    def failing():
        with io.staged_folder(target) as stage:
            (stage / "a.txt").write_text("new")
            raise error

    with pytest.raises(error):
        failing()
    assert target.exists() == exists
    assert [p.read_text() for p in tmp_path.rglob("*.txt")] == (["old"] if exists else [])
    assert len(list(tmp_path.iterdir())) == int(exists)


def test_a_staged_folder_is_no_file(tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(InputError, match="it is a file; expected a folder"), io.staged_folder(tmp_path / "out"):
        pass
    with pytest.raises(InputError, match="cannot write"), io.staged_folder(tmp_path / "out" / "below"):
        pass
    assert (tmp_path / "out").read_text() == "in the way"


def test_a_staged_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "z").write_text("old")

    def colliding():
        with io.staged_folder(tmp_path / "out") as stage:
            (stage / "a").write_text("new")
            (stage / "z").write_text("new")

    with pytest.raises(InputError, match="it is a folder"):
        colliding()
    assert (tmp_path / "out" / "z").read_text() == "old"


def test_weights(tmp_path):
    layer = torch.nn.Linear(3, 2)
    state = {**layer.state_dict(), "tied": layer.weight, "turned": torch.arange(6).reshape(2, 3).T}
    io.save_weights(state, tmp_path / "w.safetensors")
    again = io.load_weights(tmp_path / "w.safetensors")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[k], state[k]) and again[k].dtype == state[k].dtype for k in state)


def test_damaged_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="no such file"):
        io.load_weights(path)
    io.save_weights({"a": torch.zeros(100)}, path)
    whole = path.read_bytes()
    for content in (b"", whole[:20], whole[:-8], b"\xff" * 100, pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged or not safetensors") as caught:
            io.load_weights(path)
        assert str(path) in str(caught.value)


def test_settings(tmp_path):
    settings = {"zeta": 1, "alpha": {"rates": (1e-4, np.float64(0.5)), "path": tmp_path, "n": np.int64(3)}, "ü": None}
    io.save_yaml(settings, tmp_path / "c.yaml")
    again = io.load_yaml(tmp_path / "c.yaml")
    assert list(again) == ["zeta", "alpha", "ü"]
    assert again["alpha"] == {"rates": [1e-4, 0.5], "path": str(tmp_path), "n": 3}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1", "not YAML"),
        ("- 1\n- 2\n", "expected settings as name: value; got list"),
        ("", "got NoneType"),
        ("a: !!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_bad_settings(text, sentence, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence) as caught:
        io.load_yaml(tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        io.load_yaml(tmp_path / "none.yaml")


def test_json(tmp_path):
    io.save_json(
        {"a": np.float32(1.5), "b": [float("nan"), np.array([1, 2])], "c": torch.tensor(3)}, tmp_path / "a.json"
    )
    assert io.load_json(tmp_path / "a.json") == {"a": 1.5, "b": [None, [1, 2]], "c": 3}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        io.load_json(tmp_path / "a.json")
