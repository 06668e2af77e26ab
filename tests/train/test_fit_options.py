"""Options of a method beside those of training."""

import re
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path

import pytest

from whence.errors import InputError
from whence.models import Method, find_method, method_names
from whence.train.options import OWN, fit_parser
from whence.train.settings import TrainConfig

PAGE = Path(__file__).parents[2] / "docs" / "new-method.md"
TAKEN = [*OWN, *(field.name for field in fields(TrainConfig))]


@pytest.mark.parametrize("name", TAKEN)
def test_a_name_that_is_taken_is_refused_in_one_sentence(name):
    class Clash(Method):
        """A method whose option has a name of training's."""

        config_class = make_dataclass("ClashConfig", [("depth", int, 1), (name, int, 3)], frozen=True)

    Clash.name = "clash"
    with pytest.raises(InputError, match=rf"method 'clash' has an option '{name}'.* in ClashConfig$"):
        fit_parser(Clash)


def test_a_name_of_its_own_is_taken_in():
    @dataclass(frozen=True)
    class FreeConfig:
        """Options of Free.

        Args:
            depth: of the network.
        """

        depth: int = 1

    class Free(Method):
        """A method with an option of its own."""

        name = "free"
        config_class = FreeConfig

    parser = fit_parser(Free)
    model, train = parser.settings(parser.parse_args(["--data=.", "--out=.", "--depth=4", "--steps=7"]))
    assert (model.depth, train.steps) == (4, 7)


@pytest.mark.parametrize("name", method_names())
def test_our_own_methods_clash_with_nothing(name):
    fit_parser(find_method(name))


def test_the_page_lists_the_names_that_are_taken():
    listed = re.search(r"names of training\s+options\s+are\s+taken:(.*?)\.\n", PAGE.read_text(), re.DOTALL)[1]
    assert re.findall(r"`(\w+)`", listed) == TAKEN
