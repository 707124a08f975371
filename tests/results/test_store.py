"""The results file: schema, seal, tables; and the file that the book ships is whole."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.results import run as runner
from lib.results import store
from lib.results.models import MODELS, SEEDS
from lib.results.protocol import DATA
from lib.results.table import apart, best, cell, reference, rows, show, table


def row(model="vae", data="digits", seed=0, **more):
    values = {name: 1.5 for name in store.NUMBERS}
    return {"model": model, "data": data, "seed": seed, "kind": "exact", **values} | more


def whole():
    every = [
        row(m, d, s, cost=1 + 0.1 * s + k)
        for d in DATA
        for k, m in enumerate(MODELS)
        for s in SEEDS
    ]
    return store.add(store.blank(), every)


def test_written_and_read(tmp_path):
    path = store.write(whole(), tmp_path / "all.json")
    assert store.read(path)["rows"] == whole()["rows"] and not store.missing(store.read(path))


def test_an_edited_number_is_noticed(tmp_path):
    path = store.write(whole(), tmp_path / "all.json")
    path.write_text(path.read_text().replace('"cost": 1.0', '"cost": 0.9', 1))
    with pytest.raises(ValueError, match="seal"):
        store.read(path)


def test_images_of_another_model_are_noticed(tmp_path):
    results = store.read()
    images = results["images"]
    images["vae"], images["maf"] = images["maf"], images["vae"]
    path = store.write(results, tmp_path / "all.json")  # sealed again
    with pytest.raises(ValueError, match="images"):
        store.read(path)


def test_a_missing_file_says_what_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="make results"):
        store.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost": math.nan}, "not finite"),
        ({"cost": "1.2"}, "not a number"),
        ({"model": "gan"}, "no such model"),
        ({"kind": "guess"}, "no such kind"),
        ({"extra": 1.0}, "too much"),
        ({"tighter": 1.0}, "too much"),
    ],
)
def test_a_bad_row_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        store.check_row(row() | change)


def test_rows_replace_rows_of_the_same_name_and_samples_are_kept_of_the_first_seed():
    results = store.add(
        whole(), [row(seed=0, cost=7.0, drawn="abc"), row(seed=1, cost=8.0, drawn="d")]
    )
    assert [r["cost"] for r in rows(results, "digits", "vae")] == [7.0, 8.0, 2.2]
    assert results["drawn"]["digits"] == {"vae": "abc"} and len(results["rows"]) == len(
        whole()["rows"]
    )


def test_what_is_missing_is_named_first_seed_first():
    results = whole()
    results["rows"] = [r for r in results["rows"] if r["model"] != "iaf" or r["seed"] == 1]
    assert store.missing(results) == [(d, "iaf", s) for s in (0, 2) for d in DATA]


def test_an_unfinished_file_is_continued_and_a_finished_one_made_anew(tmp_path):
    path, results = tmp_path / "all.json", whole()
    results["rows"] = [r for r in results["rows"] if (r["model"], r["seed"]) != ("ode", 2)]
    store.write(results, path)
    kept, todo = runner.plan(path, None, DATA)
    assert todo == [(d, "diffusion", 2) for d in DATA] and len(kept["rows"]) == len(results["rows"])
    store.write(whole(), path)
    kept, todo = runner.plan(path, None, DATA)
    assert not kept["rows"] and len(todo) == len(SEEDS) * len(DATA) * 14
    kept, todo = runner.plan(path, ["vae"], DATA)
    assert len(kept["rows"]) == len(whole()["rows"]) and {j[1] for j in todo} == {"vae"}


def test_a_rehearsal_or_an_edited_file_is_not_continued(tmp_path):
    path, results = tmp_path / "all.json", whole()
    results["rows"].pop()
    store.write(results, path)
    with pytest.raises(ValueError, match="holds rows of 1 of the steps, not 0.01"):
        runner.plan(path, None, DATA, share=0.01)
    rehearsal, _ = runner.plan(tmp_path / "small.json", None, DATA, share=0.01)
    store.write(rehearsal | {"rows": results["rows"]}, tmp_path / "small.json")
    with pytest.raises(ValueError, match="holds rows of 0.01 of the steps, not 1"):
        runner.plan(tmp_path / "small.json", None, DATA)
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2', 1))
    with pytest.raises(ValueError):
        runner.plan(path, None, DATA)


def test_rows_of_other_code_are_not_continued(tmp_path):
    results = whole()
    results["rows"].pop()
    results["made"]["code"] = "another"
    path = store.write(results, tmp_path / "all.json")
    assert not runner.plan(path, None, DATA)[0]["rows"]


@pytest.mark.parametrize(("only", "data"), [(["vae"], DATA), (None, ("plane",)), ([], DATA)])
def test_rows_of_other_code_are_not_mixed_with_new_ones(only, data, tmp_path):
    """The file says once of all its rows which code made them."""
    results = whole()
    results["made"]["code"] = "another"
    path = store.write(results, tmp_path / "all.json")
    with pytest.raises(ValueError, match="holds rows of other code: make all again, or give"):
        runner.plan(path, only, data)
    assert not runner.plan(path, None, DATA)[0]["rows"]


def test_means_spreads_and_order():
    c = cell([1.0, 2.0, 4.5])
    assert (c.mean, c.low, c.high, c.n) == (2.5, 1.0, 4.5, 3)
    assert c.std == pytest.approx(math.sqrt((1.5**2 + 0.5**2 + 2.0**2) / 2))
    assert apart(c, cell([4.0, 5.0, 7.5])) == pytest.approx(3 / math.sqrt(2 * c.std**2 / 3))
    same, above = cell([1.0, 1.0]), cell([1.5])
    assert apart(same, cell([1.0])) == 0 and apart(c, c) == 0 and apart(same, above) == math.inf
    cells = table(whole(), "digits", ["cost", "recall"])
    assert best(cells, "cost")[0] == "gaussian" and best(cells, "cost")[-1] == "latent"
    with pytest.raises(ValueError, match="neither end"):
        best(table(whole(), "digits", ["parameters"]), "parameters")
    results = whole() | {"reference": [{"data": "plane", "seed": s, "recall": 0.9} for s in SEEDS]}
    text = show(results, "plane", ["cost", "sample_seconds", "recall"]).splitlines()
    assert (
        len(text) == 2 + len(MODELS)
        and text[1].split() == "Gaussian 1.100 ± 0.100 1,500,000 1.50".split()
    )
    assert text[-1].split() == ["real", "data", "–", "–", "0.90"]


class TestTheBooksFile:
    @pytest.fixture(scope="class")
    def results(self):
        return store.read()

    def test_every_model_data_and_seed_is_there(self, results):
        assert not store.missing(results)
        assert len(results["rows"]) == len(MODELS) * len(DATA) * len(SEEDS)
        assert len(results["reference"]) == len(DATA) * len(SEEDS)
        assert all(set(results["drawn"][d]) == set(MODELS) for d in DATA)

    def test_it_says_where_it_comes_from(self, results):
        assert {"device", "python", "torch", "date", "commit", "code"} <= set(results["made"])
        assert "/" not in json.dumps(results["made"])
        assert set(results["models"]) == set(MODELS)

    def test_numbers_are_possible(self, results):
        for r in results["rows"]:
            assert r["cost"] > -4 * r["cost_stderr"], f"{r['model']}: below the entropy"
            assert 0 <= r["precision"] <= 1 and 0 <= r["recall"] <= 1 and r["evaluations"] >= 1
            assert r["train_seconds"] <= 60, f"{r['model']} trained for {r['train_seconds']:.0f} s"
            if "tighter" in r:
                assert r["tighter"] < r["cost"] + 2 * r["cost_stderr"]

    def test_readings_of_one_network_share_its_price(self, results):
        for d in DATA:
            prices = {m: rows(results, d, m)[0]["train_seconds"] for m in ("ddpm", "sde", "ode")}
            assert len(set(prices.values())) == 1

    def test_nobody_beats_real_data_by_far(self, results):
        for d, measures in (
            ("digits", ["frechet", "sliced_wasserstein"]),
            ("plane", ["sliced_wasserstein"]),
        ):
            real = reference(results, d)
            for m, cells in table(results, d, measures).items():
                for k in measures:
                    assert cells[k].mean > 0.5 * real[k].low, f"{m} on {d}: {k} is too good"


def test_these_data_alone_leave_the_rows_of_the_others(tmp_path):
    path = store.write(whole(), tmp_path / "all.json")
    kept, todo = runner.plan(path, None, ("plane",))
    assert len(kept["rows"]) == len(whole()["rows"])
    assert len(todo) == len(SEEDS) * 14 and {job[0] for job in todo} == {"plane"}
    results = whole()
    results["rows"] = [r for r in results["rows"] if (r["model"], r["seed"]) != ("vae", 2)]
    store.write(results, path)  # unfinished: only what is missing
    assert runner.plan(path, None, ("plane",))[1] == [("plane", "vae", 2)]
    assert len(runner.plan(tmp_path / "none.json", None, ("plane",))[1]) == len(SEEDS) * 14


def stopped(training, data, seed):
    raise FloatingPointError("training stopped at step 3")


def not_a_number(training, data, seed):
    """Written and sealed, it could neither be read nor be continued."""
    return [row(training, data, seed, cost=50.0, frechet=math.nan)]


@pytest.mark.parametrize(
    ("fail", "bad", "error", "says"),
    [
        (stopped, 0, FloatingPointError, "stopped at step 3"),
        (not_a_number, 1, ValueError, "frechet of vae is not finite"),
    ],
)
def test_a_failed_training_does_not_cost_the_others(
    fail, bad, error, says, tmp_path, monkeypatch, capsys
):
    """Here in threads: the rows of all others are written, and then the error comes."""
    results = whole() | {"reference": [{"data": "plane", "seed": 0, "recall": 0.9}]}
    path = store.write(results, tmp_path / "all.json")

    def run(data, training, seed, share):
        if (data, seed) == ("digits", bad):
            return fail(training, data, seed)
        return [row(training, data, seed, cost=50.0, frechet=2.5)]

    pool = lambda jobs, mp_context: ThreadPoolExecutor(jobs)
    monkeypatch.setattr(runner, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with pytest.raises(error, match=says):
        runner.main(["--to", str(path), "--only", "vae", "--jobs", "1"])
    anew = {(r["data"], r["seed"]) for r in store.read(path)["rows"] if r["cost"] == 50.0}
    assert anew == {(d, s) for d in DATA for s in SEEDS} - {("digits", bad)}
    assert f"digits vae {bad} failed: {error.__name__}" in capsys.readouterr().out
