"""Every mistake of a user: status 2, one sentence on stderr, no traceback, what was there stays."""

import csv
import gzip
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whence.cli import COMMANDS, main


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused; returns its sentence."""

    def run(*given, says=()):
        capsys.readouterr()
        status = main([str(word) for word in given])
        said = capsys.readouterr().err
        check(status, said, says)
        return said

    return run


def check(status, said, says):
    assert status == 2, said
    lines = said.strip().splitlines()
    assert len(lines) == 1, said
    assert lines[0].startswith("whence: ")
    for word in says if isinstance(says, tuple) else (says,):
        assert str(word) in said, said


def rows_of(table):
    with open(table, newline="") as file:
        return list(csv.DictReader(file))


class Bench:
    """A table of two pairs of its own, one to train and one to test, each file replaceable."""

    def __init__(self, surgery, folder):
        self.folder = folder
        rows = rows_of(surgery)
        self.rows = []
        for split, row in (("train", rows[0]), ("test", rows[-1])):
            kept = {"id": row["id"], "split": split}
            for column, value in row.items():
                source = surgery.parent / (value or "none")
                if column not in kept and value and source.is_file():
                    kept[column] = f"{row['id']}_{column}{''.join(source.suffixes)}"
                    shutil.copy(source, folder / kept[column])
            self.rows.append(kept)
        self.table = folder / "pairs.csv"
        self.write()

    def write(self, **changes):
        """Write the table again with columns of every row changed (None leaves one out)."""
        rows = [{k: v for k, v in {**row, **changes}.items() if v is not None} for row in self.rows]
        with self.table.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def path(self, column, row=-1):
        return self.folder / self.rows[row][column]


@pytest.fixture
def bench(surgery, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return Bench(surgery, folder)


def save(path, array, affine=None):
    nib.save(nib.Nifti1Image(np.asarray(array), np.eye(4) if affine is None else affine), path)


def noise(*shape):
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(path):
    image = noise(32, 32, 1)
    image[3, 4] = np.nan
    save(path, image)


def with_infinity(path):
    image = noise(32, 32, 1)
    image[3, 4] = np.inf
    save(path, image)


def constant(path):
    save(path, np.full((32, 32), 7, np.float32))


def of_three_dimensions(path):
    save(path, noise(16, 16, 16))


def of_three_channels(path):
    save(path, noise(32, 32, 1, 1, 3))


def singular(path):
    image = nib.Nifti1Image(noise(32, 32), np.eye(4))
    image.header["srow_x"] = image.header["srow_y"] = [1, 1, 0, 0]
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    content = bytearray(image.to_bytes())
    content[280:328] = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], "<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))


BAD_IMAGES = {
    "missing": (lambda path: path.unlink(), ""),
    "truncated": (truncated, ""),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("not an image"), ""),
    "nan": (with_nan, "NaN or infinite"),
    "infinite": (with_infinity, "NaN or infinite"),
    "constant": (constant, "7 everywhere"),
    "dimensions": (of_three_dimensions, "3D"),
    "singular": (singular, "singular"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@pytest.mark.parametrize("column", ["source", "target"])
def test_a_bad_image_in_a_table(kind, column, bench, trained, fit_command, refused, tmp_path):
    spoil, says = BAD_IMAGES[kind]
    for row in (0, 1):
        spoil(bench.path(column, row))
    name = bench.rows[-1][column]
    refused("evaluate", trained, "--data", bench.table, "--out", tmp_path / "out", says=(name[9:], says))
    assert not (tmp_path / "out").exists()
    if (kind, column) != ("dimensions", "source"):  # a 3D source alone is what a 3D model may learn from
        refused(*fit_command(bench.table, tmp_path / "run"), says=(bench.rows[0][column][9:], says))
        assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("kind", [*(kind for kind in BAD_IMAGES if kind != "dimensions"), "channels"])
def test_a_bad_image_to_predict(kind, trained, surgery, refused, tmp_path):
    spoil, says = {**BAD_IMAGES, "channels": (of_three_channels, "has 3 channels; it looks like a colour image")}[kind]
    image = tmp_path / "image.nii.gz"
    shutil.copy(surgery.parent / rows_of(surgery)[-1]["source"], image)
    out = tmp_path / "out"
    assert main(["predict", str(trained), str(image), "--out", str(out)]) == 0
    before = {p: p.read_bytes() for p in out.iterdir()}
    spoil(image)
    refused("predict", trained, image, "--out", out, says=(image, says))
    assert {p: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a readable csv"),
        ("id,source,target,split\n", "has no rows"),
        ("id,source,target\na,b,c\n", "no column 'split'"),
        ("id,sourse,target,split\na,b,c,train\n", "no column 'source'"),
        ("id,source,target,split,traget_mask\na,b,c,train,d\n", "did you mean 'target_mask'"),
        ("id,source,target,split\na,nowhere.nii.gz,nowhere.nii.gz,train\n", "line 2: source names 'nowhere.nii.gz'"),
        ("id,source,target,split\na,,x,train\n", "pairs.csv"),
        ("id,source,target,split\na,pairs.csv,pairs.csv,train\na,pairs.csv,pairs.csv,train\n", "more than once"),
        ("id,source,target,split\n../a,pairs.csv,pairs.csv,train\n", "the id is '../a'"),
        ("id,source,target,split\na,pairs.csv,pairs.csv,train,more\n", "not a readable csv"),
        ("id,source,target,split\na,pairs.csv\n", "pairs.csv"),
        ("id,source,target,split\na,pairs.csv,pairs.csv,test\n", "no rows of split train"),
        ("id,source,target,split\na,pairs.csv,pairs.csv,train\n", "unknown format '.csv'"),
    ],
)
def test_a_bad_table(text, says, fit_command, refused, tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text(text)
    refused(*fit_command(table, tmp_path / "run"), says=(table, says))
    assert not (tmp_path / "run").exists()


def test_a_table_that_is_none(fit_command, refused, tmp_path):
    refused(*fit_command(tmp_path / "none.csv", tmp_path / "run"), says="no file")
    refused(*fit_command(tmp_path, tmp_path / "run"), says="expected a table")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 20)
    refused(*fit_command(tmp_path / "binary.csv", tmp_path / "run"), says="not a readable csv")


def test_truth_that_does_not_fit(bench, trained, refused, tmp_path):
    """Masks, labels, points and fields of another grid, other dimensions or another kind."""
    evaluate = ("evaluate", trained, "--data", bench.table, "--out", tmp_path / "out")

    def spoiled(column, spoil, *says):
        kept = bench.path(column).read_bytes()
        spoil(bench.path(column))
        refused(*evaluate, says=(bench.path(column), *says))
        bench.path(column).write_bytes(kept)

    ones = np.zeros((32, 32), np.uint8)
    ones[8:20, 8:20] = 1
    for column in ("target_mask", "target_brain", "source_labels", "target_labels"):
        spoiled(column, lambda path: save(path, ones[:20, :20]), "another grid", "expected the same")
        spoiled(column, lambda path: save(path, ones, np.diag([2.0, 2, 2, 1])), "another grid")
        spoiled(column, lambda path: save(path, ones[..., None].repeat(8, 2)), "another grid")
        spoiled(column, lambda path: save(path, noise(32, 32)), "whole numbers")
        spoiled(column, truncated)
    spoiled("displacement", lambda path: save(path, noise(32, 32)))
    spoiled("displacement", lambda path: save(path, noise(8, 8, 8, 1, 3)))
    spoiled("displacement", truncated)
    for column in ("source_points", "target_points"):
        spoiled(column, lambda path: path.write_text("label,x,y,z,frame\na,1,2,3,RAS\n"), "3D points")
        spoiled(column, lambda path: path.write_text("a,b\n1,2\n"), "no column x")
        spoiled(column, lambda path: path.write_text("label,x,y,frame\na,1,2,XYZ\n"), "unknown frame")
        spoiled(column, lambda path: path.write_text("label,x,y,frame\na,one,2,RAS\n"), "expected a number")
        spoiled(column, lambda path: path.write_text("label,x,y,frame\na,1,2,RAS\n"), "same landmarks")
    assert not (tmp_path / "out").exists()
    assert main([str(word) for word in evaluate]) == 0


def test_unknown_words(trained, surgery, fit_command, refused, tmp_path):
    out = ("--out", tmp_path / "out")
    refused("conjure", says="unknown command 'conjure'")
    refused("fit", says="expected a method")
    refused("fit", "alchemy", "--data", surgery, *out, says=("unknown method 'alchemy'", "tracetrans"))
    refused("fit", "tracetrans", *out, says="missing --data")
    refused(*fit_command(surgery, tmp_path / "out"), "--lerning_rate", 3, says="did you mean --learning_rate?")
    refused(*fit_command(surgery, tmp_path / "out", steps="many"), says=("--steps", "'many'", "whole number"))
    refused(*fit_command(surgery, tmp_path / "out", similarity="love"), says=("'love'", "'ncc'"))
    refused(*fit_command(surgery, tmp_path / "out", dims=4), says=("--dims", "2, 3"))
    refused(*fit_command(surgery, tmp_path / "out", features="wide"), says=("--features", "a list"))
    refused(*fit_command(surgery, tmp_path / "out", alpha=1.5), says="alpha must lie between 0 and 1")
    refused(*fit_command(surgery, tmp_path / "out", dims=3), says="3D")
    refused(*fit_command(surgery, tmp_path / "other", learning_rate=-1), says="learning rate")
    refused(*fit_command(surgery, tmp_path / "other", seed=2**70), says="2^63")
    refused(*fit_command(surgery, tmp_path / "other", spacing="[1e-3,1e-3]"), says="--spacing")
    refused(*fit_command(surgery, tmp_path / "other", learning_rate=1e12), says="training stopped")
    refused(*fit_command(surgery, tmp_path / "out", size="[8,8,8]"), says="--size needs 2 numbers")
    refused(*fit_command(surgery, tmp_path / "out"), "--config", "nowhere", says=("'nowhere'", "tracetrans-cpu"))
    (tmp_path / "bad.yaml").write_text("steps: [1\n")
    refused(*fit_command(surgery, tmp_path / "out"), "--config", tmp_path / "bad.yaml", says="bad.yaml")
    (tmp_path / "unknown.yaml").write_text("stepz: 1\n")
    refused(
        *fit_command(surgery, tmp_path / "out"), "--config", tmp_path / "unknown.yaml", says="did you mean --steps?"
    )
    refused("evaluate", trained, "--data", surgery, *out, "--split", "tset", says=("tset", "train"))
    refused("predict", trained, surgery, *out, "--split", "tset", says="tset")
    refused("predict", trained, *out, says="missing image")
    refused("phantom", says="missing kind")
    refused("demo", "--steps", -3, *out, says="-3")
    refused("demo", "--cases", 1, *out, says="at least 2 cases")
    refused("phantom", "opera", *out, says=("opera", "surgery"))
    refused("phantom", "surgery", "--dims", 4, *out, says="4")
    refused("phantom", "surgery", "--n", 0, *out, says="0")
    refused("phantom", "surgery", "--size", 3, *out, says="3")
    refused("pairs", "my-layout", tmp_path, *out, says=("my-layout", "brain-tumor-progression"))
    refused("pairs", "brain-tumor-progression", tmp_path, *out, says=tmp_path)
    refused("pairs", "brain-tumor-progression", tmp_path / "none", *out, says="none")
    refused("methods", "--all", says="unknown option '--all'")
    assert not (tmp_path / "out").exists()


def test_what_is_no_run(trained, surgery, refused, tmp_path):
    image = surgery.parent / rows_of(surgery)[0]["source"]
    out = tmp_path / "out"
    refused("predict", tmp_path / "none", image, "--out", out, says=("run folder", tmp_path / "none"))
    refused("evaluate", surgery.parent, "--data", surgery, "--out", out, says="run folder")
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for content, says in (("a: [1", "not YAML"), ("a: 1", "not the config"), ("", "expected settings")):
        (run / "config.yaml").write_text(content)
        refused("predict", run, image, "--out", out, says=(run / "config.yaml", says))
    shutil.copy(trained / "config.yaml", run)
    deep = (trained / "config.yaml").read_text().replace("dims: 2", "dims: 3")
    (run / "config.yaml").write_text(deep)
    refused("predict", run, image, "--out", out, says=run / "model.safetensors")
    shutil.copy(trained / "config.yaml", run)
    truncated(run / "model.safetensors")
    refused("predict", run, image, "--out", out, says=run / "model.safetensors")
    (run / "model.safetensors").unlink()
    refused("predict", run, image, "--out", out, says="not finished")
    (run / "config.yaml").write_text((trained / "config.yaml").read_text().replace("- 16", "- 24", 1))
    shutil.copy(trained / "model.safetensors", run)
    refused("predict", run, image, "--out", out, says="expected (24,")
    assert not out.exists()


def test_an_image_with_too_few_dimensions(surgery, surgery_3d, fit_command, refused, tmp_path):
    run, image = tmp_path / "run", surgery.parent / rows_of(surgery)[0]["source"]
    assert main(fit_command(surgery_3d, run, steps=1, save_every=1, batch_size=1)) == 0
    refused("predict", run, image, "--out", tmp_path / "out", says=("expects 3D", image, "2D"))
    refused("evaluate", run, "--data", surgery, "--out", tmp_path / "out", says=("expects 3D", "2D"))
    assert not (tmp_path / "out").exists()


def test_apply(bench, surgery_3d, refused, tmp_path):
    field, image, points = (bench.path(column) for column in ("displacement", "source", "target_points"))
    row = rows_of(surgery_3d)[0]
    deep, deep_points = (surgery_3d.parent / row[column] for column in ("source", "source_points"))
    out = tmp_path / "out.nii.gz"
    assert main(["apply", str(field), str(image), "--out", str(out)]) == 0
    before = out.read_bytes()
    refused("apply", tmp_path / "none.nii.gz", image, "--out", out, says="none.nii.gz")
    refused("apply", image, image, "--out", out, says=image)
    refused("apply", field, tmp_path / "none.nii.gz", "--out", out, says="none.nii.gz")
    refused("apply", field, deep, "--out", out, says=(deep, "3D"))
    refused("apply", field, image, "--like", deep, "--out", out, says=(deep, "3D"))
    refused("apply", field, image, "--like", tmp_path / "none.nii", "--out", out, says="none.nii")
    refused("apply", field, image, "--labels", "--out", out, says=(image, "whole numbers"))
    refused("apply", field, image, "--labels", "--points", "--out", out, says="not both")
    refused("apply", field, image, "--points", "--out", tmp_path / "out.csv", says=image)
    refused("apply", field, deep_points, "--points", "--out", tmp_path / "out.csv", says=(deep_points, "3D"))
    refused("apply", field, points, "--points", "--out", tmp_path / "out.xyz", says="out.xyz")
    refused("apply", field, points, "--out", out, says=points)
    refused("apply", field, image, "--out", tmp_path / "out.xyz", says=".xyz")
    refused("apply", field, image, says="missing --out")
    (tmp_path / "affine.txt").write_text(
        "#Insight Transform File V1.0\nTransform: AffineTransform_double_2_2\n"
        "Parameters: 1 0 0 1 3 0\nFixedParameters: 0 0\n"
    )
    refused("apply", tmp_path / "affine.txt", image, "--out", out, says="--like")
    (tmp_path / "broken.txt").write_text("#Insight Transform File V1.0\nTransform: Aff")
    refused("apply", tmp_path / "broken.txt", image, "--out", out, says="broken.txt")
    assert out.read_bytes() == before
    assert not (tmp_path / "out.csv").exists()
    assert main([str(w) for w in ("apply", tmp_path / "affine.txt", image, "--like", image, "--out", out)]) == 0


def test_report(trained, surgery, refused, tmp_path):
    image = surgery.parent / rows_of(surgery)[0]["source"]
    out = tmp_path / "trace"
    assert main(["predict", str(trained), str(image), "--out", str(out)]) == 0
    refused("report", tmp_path / "none", says="none")
    refused("report", surgery.parent, says="trace")
    refused("report", out, "--max-megabytes", "much", says="--max-megabytes got 'much'; expected a number")
    whole = (out / "trace.json").read_text()
    for content in ("", "[]", "{", '"trace"', whole[: len(whole) // 2]):
        (out / "trace.json").write_text(content)
        refused("report", out, says="trace.json")
    (out / "trace.json").write_text(whole)
    for name in ("prediction", "source", "displacement", "inverse", "novelty", "warped_source"):
        kept = (out / f"{name}.nii.gz").read_bytes()
        truncated(out / f"{name}.nii.gz")
        refused("report", out, says=f"{name}.nii.gz")
        (out / f"{name}.nii.gz").unlink()
        refused("report", out, says=f"{name}.nii.gz")
        (out / f"{name}.nii.gz").write_bytes(kept)
    assert not (out / "report.html").exists()
    assert main(["report", str(out)]) == 0


def test_places_that_cannot_be_written(trained, surgery, bench, fit_command, refused, tmp_path):
    """A file stands where a folder should: not writable for anybody, the superuser included."""
    wall = tmp_path / "wall"
    wall.write_text("a file")
    image = surgery.parent / rows_of(surgery)[0]["source"]
    for out in (wall, wall / "below"):
        refused(*fit_command(surgery, out), says=wall)
        refused("predict", trained, image, "--out", out, says=wall)
        refused("evaluate", trained, "--data", surgery, "--out", out, says=wall)
        refused("phantom", "surgery", "--n", 1, "--size", 32, "--out", out, says=wall)
    refused("apply", bench.path("displacement"), image, "--out", wall / "a.nii.gz", says=wall)
    (tmp_path / "a.nii.gz").mkdir()
    refused("apply", bench.path("displacement"), image, "--out", tmp_path / "a.nii.gz", says="a.nii.gz")
    assert wall.read_text() == "a file"


def limited(size):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def real(*given, size=None):
    """The command in a process of its own, whose files may not grow beyond a size."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "whence.cli", *map(str, given)]
    return subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=None if size is None else limited(size),
    )


def test_a_disk_without_room(trained, surgery, tmp_path):
    image = surgery.parent / rows_of(surgery)[0]["source"]
    out = tmp_path / "out"
    assert main(["predict", str(trained), str(image), "--out", str(out)]) == 0
    before = {p: p.read_bytes() for p in out.iterdir()}
    # Between the smallest and the largest file of a trace: writing fails midway.
    done = real("predict", trained, image, "--out", out, size=3000)
    check(done.returncode, done.stderr, "cannot write")
    assert {p: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.slow
def test_a_disk_without_room_for_checkpoints(surgery, fit_command, tmp_path):
    command = fit_command(surgery, tmp_path / "run")
    done = real(*command, size=30_000)
    check(done.returncode, done.stderr, "cannot write")
    assert main(command) == 0


def test_a_real_process(tmp_path):
    done = real("predict", tmp_path / "none", tmp_path / "none.nii.gz", "--out", tmp_path / "out")
    check(done.returncode, done.stderr, "run folder")
    assert done.stdout == ""


@pytest.mark.parametrize("command", [*COMMANDS, "fit tracetrans", "fit pix2pix"])
def test_help_of_every_command(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert f"whence {command.split()[0]}" in capsys.readouterr().out


def test_help_explains_every_option(capsys):
    from dataclasses import fields

    from whence.models import find_method
    from whence.models.tracetrans import TraceTransConfig
    from whence.train.options import fit_parser
    from whence.train.settings import TrainConfig

    help_of = {action.dest: action.help for action in fit_parser(find_method("tracetrans"))._actions}
    for option in (*fields(TraceTransConfig), *fields(TrainConfig)):
        assert len((help_of[option.name] or "").strip()) > 5, option.name


def test_the_overview_is_fast():
    """Neither `import whence` nor `whence --help` imports what takes seconds."""
    code = (
        "import sys, whence\n"
        "from whence.cli import main\n"
        "assert main(['--help']) == main(['--version']) == 0 and main(['conjure']) == 2\n"
        "heavy = {'torch', 'monai', 'lightning', 'SimpleITK', 'numpy', 'pandas', 'jsonargparse'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


def test_public_names_are_there():
    import whence

    for name in whence.__all__:
        assert getattr(whence, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = whence.nothing


def test_nothing_is_left_beside_the_working_folder(trained, surgery, refused, tmp_path):
    image = surgery.parent / rows_of(surgery)[0]["source"]
    refused("predict", trained, image, "--out", Path(image))
    assert not [p for p in image.parent.iterdir() if p.name.startswith(".")]
