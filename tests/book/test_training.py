"""The page about training: its table is that of the cards, its commands exist, its calculations are right."""

import re

import pytest
import recipes
import torch
from build import staged_files
from notebooks import ROOT, chapters

from lib import weights
from lib.diffusion.recipes import cifar10_model
from lib.recipe import _parser
from lib.train.catalogue import ENTRIES, GPU, find

PAGE = (ROOT / "book" / "training.md").read_text(encoding="utf8")
ANCHORS = (ROOT / "book" / "references.md").read_text(encoding="utf8")


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_says_of_every_recipe_where_it_stands():
    head, rule, *rows = map(cells, recipes.table().splitlines())
    assert len(rows) == len(ENTRIES) and {len(row) for row in rows} == {len(head)} == {len(rule)}
    for (name, entry), row in zip(ENTRIES.items(), rows, strict=True):
        assert row[0].startswith(f"`{name.replace('_', '-')}`") and row[3] == entry.target
        for key in re.findall(r"references\.md#(\w+)", row[3]):
            assert f'<a id="{key}">' in ANCHORS
        if not (weights.FOLDER / f"{name}.json").exists():
            assert row[4] == (recipes.OPEN if entry.machine == GPU else recipes.LIVE)
            continue
        card = weights.card(name)
        value = card["metrics"]
        for key in entry.found:
            value = value[key]
        number, unit = row[4].split(" ", 1)
        assert float(number) == pytest.approx(value, rel=1e-3)
        assert unit == entry.unit + recipes.cut(name, card)
        assert card["date"].replace("-", recipes.HYPHEN) in row[6] and row[5]


def test_a_run_of_fewer_steps_than_planned_says_so():
    made = lambda steps: {"recipe": f"lib.flows.autoregressive_recipes.mnist_maf(steps={steps})"}
    assert recipes.planned("mnist_maf") == 60_000
    assert recipes.cut("mnist_maf", made(9000)) == ", after 9,000 of 60,000 steps"
    assert recipes.cut("mnist_maf", made(60_000)) == recipes.cut("mnist_maf", {}) == ""
    assert recipes.cut("mnist_small", {"recipe": "mnist_small(steps=5)"}) == ""  # trained on a core


def test_every_recipe_for_a_gpu_has_planned_steps():
    planned = [recipes.planned(n) for n, e in ENTRIES.items() if e.machine == GPU]
    assert planned and all(isinstance(n, int) and n >= 10_000 for n in planned)


def test_what_was_measured_is_on_the_page_that_is_built():
    if not (ROOT / "_build" / "executed").is_dir():
        pytest.skip("the book is not built here")
    page = staged_files(chapters())["book/training.md"].decode()
    assert recipes.table() in page and "<!-- recipes -->" not in page


@pytest.mark.parametrize("path", ["book/training.md", "README.md", *sorted(
    str(p.relative_to(ROOT)) for p in chapters()
)])  # fmt: skip
def test_commands_name_recipes(path):
    text = (ROOT / path).read_text(encoding="utf8")
    named = re.findall(r"-m lib\.train ([a-z0-9][\w-]*)", text)
    assert all(find(name) for name in named)
    assert named or not path.endswith("training.md")


def test_sizes_of_messages():
    """A ring all-reduce: 2 (W - 1) / W times the gradient's bytes."""
    count = {
        name: weights.card(name.replace("-", "_"))["parameters"]
        for name in ("mnist-small", "ddpm-mnist")
    }
    with torch.device("meta"):
        count["ddpm-cifar10"] = sum(p.numel() for p in cifar10_model().parameters())
    for name, parameters in count.items():
        (row,) = [cells(s) for s in PAGE.splitlines() if s.startswith(f"| `{name}` |")]
        sent = [2 * (w - 1) / w * 4 * parameters / 1e6 for w in (2, 8)]
        want = [parameters / 1e6, *sent, sent[1] / 1.25e3, sent[1] / 100e3]
        got = [float(cell.rstrip("M")) for cell in row[1:]]
        assert got == pytest.approx(want, rel=0.06), name


def test_what_the_page_says_of_checkpoints():
    """Every 1,000 steps is the default of the command."""
    assert "every 1,000 steps" in PAGE
    assert _parser({"x": None}, None, {}).parse_args([]).checkpoint_every == 1000
