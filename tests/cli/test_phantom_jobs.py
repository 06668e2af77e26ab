"""whence phantom --jobs: several processes, the same bytes."""

from whence.cli import main


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_processes_write_the_same_bytes(tmp_path):
    given = ["phantom", "surgery", "--n", "2", "--size", "32"]
    assert main([*given, "--out", str(tmp_path / "one")]) == 0
    assert main([*given, "--jobs", "2", "--out", str(tmp_path / "two")]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_no_process_is_refused(tmp_path, capsys):
    assert main(["phantom", "surgery", "--jobs", "0", "--out", str(tmp_path / "none")]) == 2
    assert "jobs of at least 1; got 0" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
