"""pairs.csv: one row a pair of images, with whatever is known of it."""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from whence.errors import InputError

LABEL_NAMES = "label_names.yaml"
REQUIRED = ("id", "source", "split")
FILES = (
    "source",
    "target",
    "registered",
    "counterpart",
    "source_mask",
    "target_mask",
    "target_cavity",
    "source_brain",
    "target_brain",
    "source_labels",
    "target_labels",
    "source_points",
    "target_points",
    "displacement",
    "inverse",
)
COLUMNS = (*dict.fromkeys((*REQUIRED, *FILES)),)
# Names, even where they look like numbers.
TEXT = ("patient", "domain")
DOMAIN, DOMAINS = "domain", ("source", "target")
NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Pair:
    """One row: its id, its split, absolute paths of the files it names, and its conditions."""

    id: str
    split: str
    files: dict[str, Path]
    conditions: dict[str, Any] = field(default_factory=dict)

    def path(self, column: str) -> Path:
        """Path of a column. Raises InputError where this row has none."""
        if column not in self.files:
            raise InputError(f"pair {self.id!r} has no {column!r}; the column is missing or empty in its table")
        return self.files[column]


@dataclass(frozen=True)
class PairsTable:
    """Rows of a pairs.csv; paths in it are relative to the table's folder."""

    path: Path
    rows: tuple[Pair, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.rows)

    def split(self, *names: str) -> PairsTable:
        """Rows of the named splits. Raises InputError if there is none."""
        rows = tuple(row for row in self.rows if row.split in names)
        if not rows:
            found = sorted({row.split for row in self.rows})
            raise InputError(f"{self.path} has no rows of split {' or '.join(names)}; it has {', '.join(found)}")
        return PairsTable(self.path, rows)

    @property
    def has_domains(self) -> bool:
        """Whether rows are images of two domains, as the column ``domain`` says, rather than pairs."""
        return any(DOMAIN in row.conditions for row in self.rows)

    def domain(self, name: str) -> PairsTable:
        """Rows of a domain, ``source`` or ``target``; a row that names none is of the source's. May be empty."""
        return PairsTable(self.path, tuple(row for row in self.rows if row.conditions.get(DOMAIN, "source") == name))

    def complete(self, columns: Sequence[str]) -> PairsTable:
        """Rows that name a file in each of these columns. May be empty."""
        return PairsTable(self.path, tuple(row for row in self.rows if all(c in row.files for c in columns)))

    @property
    def label_names(self) -> dict[str, str]:
        """Names of the labels by their number, from ``label_names.yaml`` beside the table; empty without one."""
        from whence.io import load_yaml

        path = self.path.parent / LABEL_NAMES
        return {str(label): str(name) for label, name in load_yaml(path).items()} if path.is_file() else {}

    @property
    def digest(self) -> str:
        """A hash that any change of the rows, or of a file's size, changes."""
        digest = hashlib.sha256()
        for row in self:
            files = {column: [path.name, _size(path)] for column, path in row.files.items()}
            digest.update(json.dumps([row.id, row.split, files, row.conditions], sort_keys=True).encode())
        return digest.hexdigest()[:12]

    def has(self, column: str) -> bool:
        """Whether every row names a file in this column."""
        return all(column in row.files for row in self.rows)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else len(list(path.iterdir()))


def read_pairs(
    path: str | Path,
    columns: Sequence[str] = ("source", "target"),
    faults: dict[str, str] | None = None,
    called: Mapping[str, str] | None = None,
) -> PairsTable:
    """Read and check a pairs.csv: required columns present, ids unique, every file there.

    ``columns`` are the file columns that every row must fill; ``called`` says under which other name a table has some,
    such as another sequence's as the source. Further columns are conditions: numbers
    where every filled cell of the column is one, finite and without a leading zero, else text, as
    ``patient`` always is. A name that is nearly a known one is taken for a slip of the pen.
    Raises InputError naming row and column; where ``faults`` is given, a row whose file is missing is left out and
    goes there instead, id and sentence.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a table of pairs; there is no file {path}")
    try:
        with warnings.catch_warnings():
            # Without the index rule a line with a field too many would shift all others.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False).fillna("")
    except pd.errors.ParserWarning as error:
        raise InputError(f"{path} is not a readable csv table: lines have more fields than its header") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable csv table: {' '.join(str(error).split())}") from error
    table = _renamed(path, table, called or {})
    _check_columns(path, list(table.columns), columns)
    if table.empty:
        raise InputError(f"{path} has no rows")
    kinds = {str(name): _kind(str(name), table[name]) for name in table.columns if name not in COLUMNS}
    rows, ids = [], []
    for number, record in enumerate(table.to_dict("records"), start=2):
        record = {str(name): value for name, value in record.items()}
        name = _id(path, number, record)
        ids.append(name)
        try:
            rows.append(_row(path, number, name, record, kinds, columns))
        except InputError as error:
            if faults is None:
                raise
            faults[name] = str(error)
    doubled = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    if doubled:
        raise InputError(f"{path}: ids must be unique; {doubled[0]!r} stands more than once")
    return PairsTable(path, tuple(rows))


def write_pairs(path: str | Path, records: Sequence[dict[str, Any]]) -> Path:
    """Write rows to a pairs.csv; paths below the table's folder become relative to it."""
    import pandas as pd

    from whence.io import replacing

    path = Path(path)
    base = path.parent.resolve()
    rows = []
    for record in records:
        row = dict(record)
        for column in FILES:
            if row.get(column):
                file = Path(row[column])
                file = file if file.is_absolute() else base / file
                row[column] = file.relative_to(base).as_posix() if file.is_relative_to(base) else file.as_posix()
        rows.append(row)
    with replacing(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")
    return path


def _renamed(path: Path, table: Any, called: Mapping[str, str]) -> Any:
    """A table of text with the columns of other names under the known ones, in place of what is there."""
    for known, name in called.items():
        if known not in FILES:
            raise InputError(f"{known!r} is no column of files; expected one of {', '.join(FILES)}")
        if name not in table.columns:
            raise InputError(f"{path} has no column {name!r}, to be its {known}; it has {', '.join(table.columns)}")
    found = table.assign(**{known: table[name] for known, name in called.items()})
    return found.drop(columns=[name for name in set(called.values()) if name not in COLUMNS])


def _check_columns(path: Path, found: list[str], wanted: Sequence[str]) -> None:
    missing = [name for name in (*REQUIRED, *wanted) if name not in found]
    unknown = [name for name in found if name not in COLUMNS]
    for name in missing:
        close = get_close_matches(name, unknown, n=1)
        hint = f"; did you mean it by {close[0]!r}?" if close else ""
        raise InputError(f"{path} has no column {name!r}; it has {', '.join(found)}{hint}")
    for name in unknown:
        close = get_close_matches(name, COLUMNS, n=1, cutoff=0.85)
        if close:
            raise InputError(f"{path} has an unknown column {name!r}; did you mean {close[0]!r}?")


def _id(path: Path, number: int, record: dict[str, str]) -> str:
    """A row's id. Raises InputError for one that cannot be a folder's name."""
    name = record["id"].strip()
    if not name or name.startswith(".") or set(name) & set("/\\\0"):
        raise InputError(f"{path} line {number}: the id is {name!r}; expected a name that can be a folder's")
    return name


def _row(
    path: Path, number: int, name: str, record: dict[str, str], kinds: Mapping[str, type], columns: Sequence[str]
) -> Pair:
    files: dict[str, Path] = {}
    for column in FILES:
        value = record.get(column, "").strip()
        if not value:
            continue
        file = (path.parent / value).resolve()
        if not file.exists():
            raise InputError(f"{path} line {number}: {column} names {value!r}, which does not exist")
        files[column] = file
    conditions = {name: kind(record[name].strip()) for name, kind in kinds.items() if record[name].strip()}
    for column in columns:
        if column not in files:
            raise InputError(f"{path} line {number}: column {column!r} is empty; expected a file")
    if conditions.get(DOMAIN, "source") not in DOMAINS:
        raise InputError(
            f"{path} line {number}: the domain is {conditions[DOMAIN]!r}; expected {' or '.join(DOMAINS)}, or no word"
        )
    return Pair(name, record["split"].strip(), files, conditions)


def _kind(name: str, cells: Iterable[str]) -> type:
    """What a condition's column holds: float or str."""
    if name in TEXT:
        return str
    filled = [cell for cell in map(str.strip, cells) if cell]
    return float if all(NUMBER.fullmatch(cell) and math.isfinite(float(cell)) for cell in filled) else str
