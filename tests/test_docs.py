"""What README and docs name exists: files, commands, options; the example of a method trains and predicts."""

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from whence import cli
from whence.models import METHODS
from whence.train.parser import Parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r"(?:src|href)=[\"']([^\"']+)", prose)
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("page", "link"), [(page, link) for page in PAGES for link in links(page)])
def test_local_links_lead_somewhere(page, link):
    file, _, anchor = link.partition("#")
    target = page.parent / file if file else page
    assert target.exists(), f"{page.relative_to(ROOT)} links to {link}"
    assert not anchor or anchor in anchors(target)


def commands(page: Path) -> list[str]:
    """Every ``whence ...`` of a page: lines of its console blocks and inline code."""
    text = page.read_text(encoding="utf-8")
    blocks = [block for kind, block in FENCE.findall(text) if kind in ("console", "bash", "sh")]
    lines = "\n".join(blocks).splitlines()
    inline = re.findall(r"`([^`]+)`", FENCE.sub("", text))
    found = [" ".join(part.split()) for part in (*lines, *inline)]
    return [line for line in found if line.startswith("whence ")]


def bare_options(page: Path) -> list[str]:
    """Options that prose names without their command."""
    inline = re.findall(r"`(--[^`]+)`", FENCE.sub("", page.read_text(encoding="utf-8")))
    return [re.split(r"[\s=]", option)[0] for option in inline]


class BuiltError(Exception):
    """Carries a command's parser out of it."""


def options_of(monkeypatch, words: list[str]) -> set[str]:
    """Options that the parser of a command accepts, built as the command builds it."""

    def caught(self, *_, **__):
        raise BuiltError(self)

    with monkeypatch.context() as patch:
        patch.setattr(Parser, "parse_args", caught)
        try:
            cli._DOORS[words[0]](words[1:])
        except BuiltError as built:
            return {option for action in built.args[0]._actions for option in action.option_strings}
    raise AssertionError(f"whence {words[0]} has no parser")


@pytest.mark.parametrize(("page", "line"), [(page, line) for page in PAGES for line in commands(page)])
def test_commands_and_their_options(page, line, monkeypatch):
    words = shlex.split(line, comments=True)[1:]
    if words[0] == "COMMAND":
        words[0] = "demo"
    assert words[0] in cli.COMMANDS, line
    if words[0] == "fit":
        # A placeholder, or the method that docs/new-method.md makes.
        words[1] = {"METHOD": "tracetrans", "shift": "tracetrans"}.get(words[1], words[1])
    accepted = options_of(monkeypatch, words)
    for word in words[1:]:
        if word.startswith("--"):
            assert word.split("=")[0] in accepted, line


def test_options_named_in_prose(monkeypatch):
    words = [*(["fit", name] for name in METHODS), *(["bank", word] for word in cli.BANK_WORDS)]
    words += [[name] for name in cli.COMMANDS if name not in ("fit", "bank")]
    known = set().union(*(options_of(monkeypatch, given) for given in words))
    for page in PAGES:
        for option in bare_options(page):
            assert option in known, f"{page.relative_to(ROOT)} names {option}"


def test_the_readme_lists_every_command():
    listed = {line.split()[1] for line in commands(ROOT / "README.md")}
    assert listed - {"COMMAND"} == set(cli.COMMANDS)


def test_the_pages_hold_what_is_looked_for():
    """The patterns above find something, or the tests would be empty."""
    assert len(PAGES) >= 6
    assert sum(len(links(page)) for page in PAGES) > 8
    assert sum(len(commands(page)) for page in PAGES) > 20
    assert sum(len(bare_options(page)) for page in PAGES) > 3


def test_the_example_of_a_method_runs(surgery, tmp_path, monkeypatch):
    from whence.io import read
    from whence.train import fit, run
    from whence.train.settings import TrainConfig

    text = (ROOT / "docs" / "new-method.md").read_text(encoding="utf-8")
    block = next(code for kind, code in FENCE.findall(text) if kind == "python")
    module = ModuleType("whence_docs_shift")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
    exec(compile(block, "docs/new-method.md", "exec"), module.__dict__)
    for place in (fit, run):
        monkeypatch.setattr(place, "find_method", lambda name: module.Shift)
    settings = TrainConfig(steps=3, save_every=3, accelerator="cpu", threads=1)
    folder = fit.fit("shift", surgery, tmp_path / "run", train=settings)
    predictor = run.load(folder)
    moved = predictor.method.offset.detach().abs().max()
    # Three steps of Adam at the rate of the example.
    assert 0 < float(moved) <= 0.03 + 1e-6
    source = read(surgery.parent / "case0011" / "source.nii.gz")
    trace = predictor.predict(source)
    assert trace.info["kind"] == "predicted"
    points = source.grid.centre[None]
    shift = trace.whence(points) - points
    assert abs(shift).max() <= 0.03 * source.grid.spacing.max() + 1e-5
