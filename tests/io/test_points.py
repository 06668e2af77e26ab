import json

import numpy as np
import pytest

from whence import io
from whence.errors import InputError

POINTS = io.Points(np.array([[12.5, -30.25, 8.0], [1e-3, 100.0, -7.5]]), ("tip", "anterior, left"))


@pytest.mark.parametrize("frame", ["RAS", "LPS"])
@pytest.mark.parametrize("suffix", [".csv", ".fcsv", ".mrk.json"])
def test_what_is_written_is_read_back(frame, suffix, tmp_path):
    path = tmp_path / f"p{suffix}"
    io.write_points(POINTS, path, frame=frame)
    again = io.read_points(path)
    np.testing.assert_allclose(again.coordinates, POINTS.coordinates, atol=1e-6)
    assert again.labels == POINTS.labels
    assert len(again) == 2


def test_points_in_the_plane(tmp_path):
    flat = io.Points(np.array([[1.0, 2.0], [3.0, 4.0]]), ("a", "b"))
    io.write_points(flat, tmp_path / "p.csv", frame="LPS")
    assert (tmp_path / "p.csv").read_text().splitlines()[:2] == ["label,x,y,frame", "a,-1.000000,-2.000000,LPS"]
    np.testing.assert_allclose(io.read_points(tmp_path / "p.csv").coordinates, flat.coordinates)


def test_a_csv_may_mix_frames_and_come_from_a_spreadsheet(tmp_path):
    (tmp_path / "p.csv").write_text("\ufefflabel, x, y, z, frame\na, 1, 2, 3, RAS\n, 1, 2, 3, lps\n", encoding="utf-8")
    points = io.read_points(tmp_path / "p.csv")
    np.testing.assert_allclose(points.coordinates, [[1, 2, 3], [-1, -2, 3]])
    assert points.labels == ("a", "2")


@pytest.mark.parametrize(("name", "sign"), [("LPS", -1), ("1", -1), ("RAS", 1), ("0", 1)])
def test_slicers_fcsv(name, sign, tmp_path):
    (tmp_path / "p.fcsv").write_text(
        f"# Markups fiducial file version = 4.10\n# CoordinateSystem = {name}\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        'vtkMRMLMarkupsFiducialNode_0,1.5,-2,3,0,0,0,1,1,1,0,"F-1, left",,vtkMRMLScalarVolumeNode1\n'
        "vtkMRMLMarkupsFiducialNode_1,4,5,6,0,0,0,1,1,1,0,F-2,,\n"
    )
    points = io.read_points(tmp_path / "p.fcsv")
    np.testing.assert_allclose(points.coordinates, [[sign * 1.5, sign * -2, 3], [sign * 4, sign * 5, 6]])
    assert points.labels == ("F-1, left", "F-2")


@pytest.mark.parametrize(("name", "sign"), [("LPS", -1), ("RAS", 1)])
def test_slicers_markups(name, sign, tmp_path):
    control = {"id": "1", "label": "F-1", "position": [1.5, -2.0, 3.0], "positionStatus": "defined"}
    unplaced = {"id": "2", "label": "F-2", "position": [0.0, 0.0, 0.0], "positionStatus": "undefined"}
    markup = {"type": "Fiducial", "coordinateSystem": name, "controlPoints": [control, unplaced]}
    (tmp_path / "p.mrk.json").write_text(json.dumps({"@schema": "...", "markups": [markup]}))
    points = io.read_points(tmp_path / "p.mrk.json")
    np.testing.assert_allclose(points.coordinates, [[sign * 1.5, sign * -2, 3]])
    assert points.labels == ("F-1",)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("p.csv", "label,x,y,z\na,1,2,3\n", "no column frame"),
        ("p.csv", "", "no column x, y, frame"),
        ("p.csv", "label,x,y,z,frame\n", "holds no points"),
        ("p.csv", "label,x,y,z,frame\na,1,2,3,IJK\n", "unknown frame 'IJK' in row 1"),
        ("p.csv", "label,x,y,z,frame\na,1,two,3,RAS\n", "expected a number in mm in row 1; got 'two'"),
        ("p.csv", "label,x,y,z,frame\na,1,2\n", "unknown frame None"),
        ("p.csv", "label,x,y,z,frame\na,1,nan,3,RAS\n", "NaN or infinite"),
        ("p.fcsv", "# CoordinateSystem = 2\n1,1,2,3\n", "unknown coordinate system '2'"),
        ("p.fcsv", "1,1,2\n", "no x, y and z"),
        ("p.fcsv", "# nothing\n", "holds no points"),
        ("p.mrk.json", "{", "not a Slicer markups file"),
        ("p.mrk.json", "[1]", "not a Slicer markups file"),
        ("p.mrk.json", '{"markups": [{"controlPoints": [{"position": [1, 2]}]}]}', "not a Slicer markups file"),
        ("p.mrk.json", '{"markups": [{"coordinateSystem": "IJK", "controlPoints": []}]}', "unknown coordinate system"),
        ("p.txt", "1 2 3", "unknown format '.txt'"),
    ],
)
def test_bad_points(name, text, sentence, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=sentence) as caught:
        io.read_points(path)
    assert str(path) in str(caught.value)


def test_missing_and_binary(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        io.read_points(tmp_path / "none.csv")
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="not readable as text"):
        io.read_points(tmp_path / "p.csv")


def test_misfits(tmp_path):
    with pytest.raises(InputError, match="unknown frame 'IJK'"):
        io.write_points(POINTS, tmp_path / "p.csv", frame="IJK")
    with pytest.raises(InputError, match=r"unknown extension '\.txt'"):
        io.write_points(POINTS, tmp_path / "p.txt")
    with pytest.raises(ValueError, match="N labels"):
        io.Points(np.zeros((2, 3)), ("a",))
    assert not list(tmp_path.iterdir())
