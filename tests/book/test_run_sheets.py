"""Run sheets: every explorable figure of every chapter has one, and the figure shows what it says."""

import importlib

import pytest
import yaml
from demo import demo, gallery
from notebooks import ROOT, chapters, contents, read
from sheets import FOLDER, figures, load, names, page, panel, sheets

CHAPTERS = [ROOT / f"{page}.ipynb" for page in contents() if page.startswith("chapters/")]
SHEETS = [
    pytest.param(path, entry, id=f"{path.name[:2]}.{entry['figure']}")
    for path in chapters()
    if (FOLDER / f"{path.name[:2]}.yml").is_file()
    for entry in load(FOLDER / f"{path.name[:2]}.yml")
]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_chapter_has_a_demo_and_every_demo_a_run_sheet(path):
    found = figures(read(path))
    assert found, "no explorable figure, so no demo"
    assert [e["figure"] for e in sheets(path)] == [f["name"] for f in found]
    shown = [c["metadata"]["demo"].get("name") for c in demo(path)["cells"]]
    assert shown == [None, *(f["name"] for f in found)]
    for f in found:
        assert f"/voila/render/{path.name}#{f['name']}" in gallery([path])
        assert f"(../chapters/{path.name}#{f['anchor']})" in page([path])


@pytest.mark.parametrize(("path", "entry"), SHEETS)
def test_the_figure_shows_what_the_sheet_says(path, entry):
    module = importlib.import_module(f"lib.teach.figures.ch{path.name[:2]}")
    figure = getattr(module, entry["figure"])()
    assert names(path)[entry["figure"]] == figure.title, "the heading on the page of run sheets"
    controls = {c.name: c for c in figure.controls}
    before = dict(figure.values)
    for step in entry["steps"]:
        assert set(step["set"]) <= set(controls), step
        for name, value in step["set"].items():
            stops = controls[name].stops()
            near = [
                v
                for v in stops
                if v == value or controls[name].kind == "slider" and abs(v - value) < 1e-9
            ]
            assert near, f"{name} never is {value!r}"
        now = {**figure.values, **step["set"]}
        words = step["do"].replace("−", "-").lower()
        for name in (n for n in now if now[n] != before[n]):  # whoever reads can do it by hand
            said = (
                {True: "on", False: "off"}[now[name]]
                if controls[name].kind == "toggle"
                else now[name]
            )
            if shown := getattr(controls[name], "shown", None):  # what stands beside the slider
                said = shown[controls[name].stops().index(now[name])]
            said = str(int(said) if isinstance(said, float) and said.is_integer() else said).lower()
            assert said in words, f"{step['do']!r} does not name {name} = {said}"
        alt = figure.scene(**step["set"]).alt
        assert step["alt"] in alt, f"at {step['set']} the figure says {alt!r}"
        before = now


def test_a_missing_sheet_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"01_change_of_variables.*bend.*01.yml has run sheets for \[\]"
    ):
        sheets(chapters()[0], tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minutes": "long"}, "`minutes` must be 1 to 30"),
        ({"ask": ""}, "`ask` must be text"),
        ({"steps": []}, "at least one step"),
        ({"steps": [{"set": {}}]}, "a step has do, set, see, alt and say"),
        ({"colour": 1}, "unknown fields"),
    ],
)
def test_mistakes_in_a_sheet_are_sentences(tmp_path, change, message):
    entry = load(FOLDER / "01.yml")[0] | change
    file = tmp_path / "01.yml"
    file.write_text(yaml.safe_dump([entry]), "utf8")
    with pytest.raises(ValueError, match=message):
        load(file)


def test_a_sheet_is_text_and_not_markup():
    entry = load(FOLDER / "01.yml")[0] | {"ask": "is a < b & *c*?", "number": "1", "anchor": "x"}
    assert "is a &lt; b &amp; *c*?" in panel(entry)
