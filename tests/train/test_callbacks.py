"""What the progress line of a training says."""

import pytest

from whence.train.callbacks import stage_of


@pytest.mark.parametrize(
    ("step", "stages", "said"),
    [
        (0, (), ""),
        (99, (), ""),
        (0, (5, 10), "stage 1 of 3"),
        (4, (5, 10), "stage 1 of 3"),
        (5, (5, 10), "stage 2 of 3"),
        (15, (5, 10), "stage 3 of 3"),
        (40, (5, 10), "stage 3 of 3"),
    ],
)
def test_stages_are_counted_by_the_step_that_comes_next(step, stages, said):
    assert stage_of(step, stages) == said
