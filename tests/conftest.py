"""A small surgery phantom and a run trained on it for a few steps, shared by whoever needs one."""

import pytest

OPTIONS = {
    "steps": 6,
    "save_every": 3,
    "batch_size": 2,
    "features": "[8,16]",
    "velocity_scale": 2,
    "similarity": "ncc",
    "similarity_window": 5,
    "gamma": 0.1,
    "discriminator_filters": 8,
    "discriminator_layers": 1,
    "threads": 1,
    "accelerator": "cpu",
}


@pytest.fixture(scope="session")
def surgery(tmp_path_factory):
    """pairs.csv of 12 cases of 32x32 voxels: 10 to train, 1 to validate, 1 to test."""
    from whence.data.phantom import write_phantom

    return write_phantom("surgery", 12, 32, tmp_path_factory.mktemp("surgery"))


@pytest.fixture(scope="session")
def surgery_3d(tmp_path_factory):
    """pairs.csv of 4 cases of 32x32x32 voxels."""
    from whence.data.phantom import write_phantom

    return write_phantom("surgery", 4, 32, tmp_path_factory.mktemp("surgery3d"), dims=3)


@pytest.fixture(scope="session")
def fit_command():
    """Arguments of a fit that takes seconds, with some options changed."""

    def command(table, out, method="tracetrans", **changes):
        options = {**OPTIONS, **changes}
        given = [f"--{name}={value}" for name, value in options.items() if value is not None]
        return ["fit", method, "--data", str(table), "--out", str(out), *given]

    return command


@pytest.fixture(scope="session")
def trained(surgery, fit_command, tmp_path_factory):
    """Run folder of a finished TraceTrans run; tests that change it take a copy."""
    from whence.cli import main

    out = tmp_path_factory.mktemp("runs") / "trained"
    assert main(fit_command(surgery, out)) == 0
    return out
