"""Landmarks: csv with a frame column, and 3D Slicer's markups."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whence.errors import InputError
from whence.io.atomic import extension, replacing
from whence.space import FRAMES, to_frame

# Slicer numbers its frames in older files; 2 is voxel indices of an unnamed image.
SLICER_FRAMES = {"RAS": "RAS", "0": "RAS", "LPS": "LPS", "1": "LPS"}
FORMATS = (".csv", ".fcsv", ".mrk.json")


@dataclass(frozen=True, eq=False)
class Points:
    """Landmarks: coordinates (N, D) in RAS mm and a label each."""

    coordinates: np.ndarray
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        coordinates = np.array(self.coordinates, dtype=np.float64)
        labels = tuple(str(label) for label in self.labels)
        if coordinates.ndim != 2 or coordinates.shape[1] not in (2, 3) or len(labels) != len(coordinates):
            raise ValueError(
                f"expected coordinates (N, 2 or 3) and N labels; got shape {coordinates.shape} and {len(labels)} labels"
            )
        object.__setattr__(self, "coordinates", coordinates)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.labels)


def read_points(path: str | Path) -> Points:
    """Landmarks of a .csv (columns label, x, y, z in 3D, frame), a Slicer .fcsv or .mrk.json, turned to RAS mm.

    Raises InputError for a missing file, column or frame, or coordinates that are not finite numbers.
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".fcsv": _read_fcsv, ".mrk.json": _read_markups}
    kind = extension(path)
    if kind not in readers:
        raise InputError(f"{path}: unknown format {kind!r}; expected points in one of {', '.join(FORMATS)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected points") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({error}); expected points") from error
    labels, coordinates = readers[kind](text, path)
    if not labels:
        raise InputError(f"{path}: holds no points; expected at least one")
    array = np.asarray(coordinates, dtype=np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{path}: some coordinates are NaN or infinite; expected finite numbers in mm")
    return Points(array, tuple(labels))


def write_points(points: Points, path: str | Path, frame: str = "RAS") -> None:
    """Write landmarks as .csv, .fcsv or .mrk.json in the named frame (RAS or LPS), mm."""
    path = Path(path)
    if frame not in FRAMES:
        raise InputError(f"cannot write {path}: unknown frame {frame!r}; expected one of {', '.join(FRAMES)}")
    coordinates = to_frame(points.coordinates, "RAS", frame)
    writers = {".csv": _csv, ".fcsv": _fcsv, ".mrk.json": _markups}
    kind = extension(path)
    if kind not in writers:
        raise InputError(f"cannot write {path}: unknown extension {kind!r}; expected one of {', '.join(FORMATS)}")
    if kind != ".csv" and coordinates.shape[1] == 2:
        coordinates = np.pad(coordinates, ((0, 0), (0, 1)))
    text = writers[kind](points.labels, coordinates, frame)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _read_csv(text: str, path: Path) -> tuple[list[str], list[list[float]]]:
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    columns = [name.strip() for name in rows.fieldnames or []]
    rows.fieldnames = columns
    missing = [name for name in ("x", "y", "frame") if name not in columns]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; expected label,x,y,z,frame, got {','.join(columns)}")
    axes = [name for name in ("x", "y", "z") if name in columns]
    labels: list[str] = []
    coordinates: list[list[float]] = []
    for number, row in enumerate(rows, start=1):
        frame = (row["frame"] or "").strip().upper()
        if frame not in FRAMES:
            raise InputError(
                f"{path}: unknown frame {row['frame']!r} in row {number}; expected one of {', '.join(FRAMES)}"
            )
        point = [_number(row[a], path, number) for a in axes]
        coordinates.append(to_frame(np.array(point), frame, "RAS").tolist())
        labels.append((row.get("label") or str(number)).strip())
    return labels, coordinates


def _read_fcsv(text: str, path: Path) -> tuple[list[str], list[list[float]]]:
    frame = "RAS"
    columns = ["id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label"]
    labels: list[str] = []
    coordinates: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("#"):
            key, _, value = line[1:].partition("=")
            if key.strip() == "CoordinateSystem":
                frame = _slicer_frame(value.strip(), path)
            elif key.strip() == "columns":
                columns = [name.strip() for name in value.split(",")]
        elif line.strip():
            row = dict(zip(columns, next(csv.reader([line])), strict=False))
            if not {"x", "y", "z"} <= row.keys():
                raise InputError(f"{path}: line {number} has no x, y and z; expected Slicer's fiducial list")
            labels.append(row.get("label") or row.get("id") or str(len(labels) + 1))
            coordinates.append([_number(row[a], path, number) for a in "xyz"])
    return labels, to_frame(np.array(coordinates).reshape(-1, 3), frame, "RAS").tolist()


def _read_markups(text: str, path: Path) -> tuple[list[str], list[list[float]]]:
    try:
        markups = json.loads(text)["markups"]
        labels: list[str] = []
        coordinates: list[list[float]] = []
        for markup in markups:
            frame = _slicer_frame(str(markup.get("coordinateSystem", "LPS")), path)
            for control in markup["controlPoints"]:
                if control.get("positionStatus", "defined") != "defined":
                    continue
                position = np.array([float(value) for value in control["position"]])
                if position.shape != (3,):
                    raise ValueError(f"a position of {position.size} numbers")
                coordinates.append(to_frame(position, frame, "RAS").tolist())
                labels.append(str(control.get("label") or control.get("id") or len(labels) + 1))
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a Slicer markups file ({error}); expected markups with controlPoints") from error
    return labels, coordinates


def _slicer_frame(name: str, path: Path) -> str:
    if name.upper() not in SLICER_FRAMES:
        raise InputError(f"{path}: unknown coordinate system {name!r}; expected RAS or LPS")
    return SLICER_FRAMES[name.upper()]


def _number(text: str | None, path: Path, row: int) -> float:
    try:
        return float(text or "")
    except ValueError as error:
        raise InputError(f"{path}: expected a number in mm in row {row}; got {text!r}") from error


def _csv(labels: tuple[str, ...], coordinates: np.ndarray, frame: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["label", *"xyz"[: coordinates.shape[1]], "frame"])
    for label, point in zip(labels, coordinates, strict=True):
        writer.writerow([label, *(f"{value:.6f}" for value in point), frame])
    return out.getvalue()


def _fcsv(labels: tuple[str, ...], coordinates: np.ndarray, frame: str) -> str:
    out = io.StringIO()
    out.write(f"# Markups fiducial file version = 4.11\n# CoordinateSystem = {frame}\n")
    out.write("# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n")
    writer = csv.writer(out, lineterminator="\n")
    for number, (label, point) in enumerate(zip(labels, coordinates, strict=True), start=1):
        writer.writerow([number, *(f"{value:.6f}" for value in point), 0, 0, 0, 1, 1, 1, 0, label, "", ""])
    return out.getvalue()


def _markups(labels: tuple[str, ...], coordinates: np.ndarray, frame: str) -> str:
    controls: list[dict[str, Any]] = [
        {"id": str(number), "label": label, "position": point.tolist(), "positionStatus": "defined"}
        for number, (label, point) in enumerate(zip(labels, coordinates, strict=True), start=1)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": frame, "coordinateUnits": "mm", "controlPoints": controls}
    return json.dumps({"markups": [markup]}, indent=1)
