"""pairs.csv: what is read, what is written, and what is refused in which words."""

import pytest

from whence.data import read_pairs, write_pairs
from whence.data.readers import reader
from whence.errors import InputError


@pytest.fixture
def files(tmp_path):
    for name in ("a.nii", "b.nii", "c.nii"):
        (tmp_path / name).write_text("x")
    return tmp_path


def table(folder, text):
    path = folder / "pairs.csv"
    path.write_text(text)
    return path


def test_rows_paths_and_conditions(files):
    text = (
        "id,source,target,split,source_mask,age,sex\n one ,a.nii,b.nii, train ,,65.5,f\ntwo,b.nii,c.nii,test,a.nii,,m\n"
    )
    pairs = read_pairs(table(files, text))
    assert len(pairs) == 2
    first, second = pairs
    assert (first.id, first.split) == ("one", "train")
    assert first.path("source") == (files / "a.nii").resolve()
    assert first.conditions == {"age": 65.5, "sex": "f"}
    assert second.conditions == {"sex": "m"}
    assert not pairs.has("source_mask")
    assert pairs.split("test").has("source_mask")
    assert [row.id for row in pairs.split("train", "test")] == ["one", "two"]
    with pytest.raises(InputError, match="pair 'one' has no 'source_mask'"):
        first.path("source_mask")


def test_written_tables_are_read_back(files):
    below = files / "below"
    below.mkdir()
    (below / "d.nii").write_text("x")
    rows = [
        {"id": "1", "source": below / "d.nii", "target": "d.nii", "split": "train", "age": 3},
        {"id": "2", "source": files / "a.nii", "target": below / "d.nii", "split": "val"},
    ]
    path = write_pairs(below / "pairs.csv", rows)
    pairs = read_pairs(path)
    assert pairs.rows[0].files == {"source": (below / "d.nii").resolve(), "target": (below / "d.nii").resolve()}
    assert pairs.rows[1].path("source") == (files / "a.nii").resolve()
    assert pairs.rows[0].conditions == {"age": 3.0}
    # What lies below the table moves with it.
    assert path.read_text().splitlines()[1].startswith("1,d.nii,d.nii,")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not a readable csv table"),
        ("id,source,target,split\n", "has no rows"),
        ("source,target,split\na.nii,b.nii,train\n", "no column 'id'; it has source, target, split"),
        ("id,source,split\n1,a.nii,train\n", "no column 'target'"),
        ("id,source,targett,split\n1,a.nii,b.nii,train\n", "no column 'target'.*by 'targett'"),
        ("id,source,target,split,sorce_mask\n1,a.nii,b.nii,train,c.nii\n", "unknown column 'sorce_mask'; did you mean"),
        ("id,source,target,split\n1,a.nii,,train\n", "line 2: column 'target' is empty"),
        ("id,source,target,split\n1,a.nii,b.nii,train\n2,a.nii,z.nii,train\n", "line 3: target names 'z.nii'"),
        ("id,source,target,split\n1,a.nii,b.nii,train\n1,a.nii,b.nii,val\n", "ids must be unique; '1'"),
        ("id,source,target,split\n,a.nii,b.nii,train\n", "line 2: the id is ''"),
        ("id,source,target,split\na/b,a.nii,b.nii,train\n", "line 2: the id is 'a/b'"),
        ("id,source,target,split\n..,a.nii,b.nii,train\n", r"line 2: the id is '\.\.'"),
        ("id,source,target,split\n1,a.nii,b.nii,train,more\n", "more fields than its header"),
        ("id,source,target,split\n1,a.nii\n", "column 'target' is empty"),
        ('id,source,target,split\n1,"a.nii,b.nii,train\n', "not a readable csv table"),
    ],
)
def test_what_is_refused(text, match, files):
    path = table(files, text)
    with pytest.raises(InputError, match=match) as refused:
        read_pairs(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_split_that_is_not_there(files):
    pairs = read_pairs(table(files, "id,source,target,split\n1,a.nii,b.nii,train\n"))
    with pytest.raises(InputError, match="no rows of split val; it has train"):
        pairs.split("val")


def test_a_source_alone_is_enough_to_predict(files):
    path = table(files, "id,source,split\n1,a.nii,test\n")
    assert read_pairs(path, columns=("source",)).rows[0].path("source").name == "a.nii"


def test_an_unknown_layout():
    with pytest.raises(InputError, match="unknown layout 'mine'; expected one of brain-tumor-progression"):
        reader("mine")
