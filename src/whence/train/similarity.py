"""What images are compared by, as the command line names it."""

from __future__ import annotations

from pathlib import Path

from whence.errors import InputError
from whence.losses import SIMILARITIES, Similarity, make_similarity
from whence.models.evaluator import evaluator_similarity
from whence.registration.diffeomorphic import FINE
from whence.space import Grid
from whence.train.run import load

# Options that a similarity takes from the command line.
OPTIONS = {"ncc": "window", "nmi": "bins", "mi": "bins"}
DEFAULTS = {"window": int(FINE["window"]), "bins": 32}


def find_similarity(name: str, grid: Grid | None = None, **options: int | None) -> Similarity:
    """Dissimilarity by name, its options set; those that it does not take, or that are None, are left out.

    The folder of a run that estimates spatial error is a name as well; ``grid`` has the axes of the images that it
    will see. Raises InputError for an unknown
    name, a run that estimates none, or an option out of range.
    """
    if name not in SIMILARITIES and Path(name).is_dir():
        return evaluator_similarity(load(name), grid)
    if name not in SIMILARITIES:
        raise InputError(
            f"unknown similarity {name!r}; expected one of {', '.join(SIMILARITIES)}, or the folder of a run that "
            "estimates spatial error"
        )
    option = OPTIONS.get(name)
    given = options.get(option) if option else None
    chosen = {} if option is None else {option: DEFAULTS[option] if given is None else given}
    try:
        return make_similarity(name, **({**FINE, **chosen} if name == "ncc" else chosen))
    except ValueError as error:
        raise InputError(str(error)) from error
