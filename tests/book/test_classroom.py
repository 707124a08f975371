"""The files for a class: they parse, agree with what was measured, and lead to this repository."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import hub
import pytest
import yaml
from notebooks import ROOT, chapters
from traitlets.config import Config

PAGE = (ROOT / "book" / "classroom.md").read_text(encoding="utf8")
VALUES = yaml.safe_load((ROOT / "deploy" / "values.yaml").read_text(encoding="utf8"))
MEASURED = hub.measured()
PLAN = hub.plan(200, MEASURED)


def pins(name: str) -> dict[str, str]:
    """Package and version of each line of a requirements file."""
    text = (ROOT / name).read_text(encoding="utf8")
    return dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.M))


# ---------------------------------------------------------------- what was measured, and what follows


def test_values_are_the_plan_of_200():
    user = VALUES["singleuser"]
    assert user["memory"] == {"guarantee": f"{PLAN.memory:g}G", "limit": f"{PLAN.limit:g}G"}
    assert user["cpu"] == {"guarantee": PLAN.cores, "limit": 1}
    assert VALUES["scheduling"]["userPlaceholder"]["replicas"] == PLAN.per_node


def test_page_states_the_same_limits():
    limits = dict(re.findall(r"tljh-config set limits\.(\w+) (\S+)", PAGE))
    assert limits == {"memory": f"{PLAN.limit:g}G", "cpu": "1"}
    assert "<!-- class measured -->" in PAGE and "<!-- class computed -->" in PAGE


def test_every_chapter_fits_its_limit_and_the_nodes_hold_the_class():
    sizes = {k.split()[1]: v for k, v in MEASURED.items() if k.startswith("chapter ")}
    assert sorted(sizes) == [p.name[:2] for p in chapters()], "measure the chapters again"
    server = MEASURED["server peak MB, most"]
    assert all(
        (size + server) * 1e6 <= PLAN.memory * 2**30 < PLAN.limit * 2**30 for size in sizes.values()
    )
    assert PLAN.nodes * PLAN.per_node >= 200 > (PLAN.nodes - 1) * PLAN.per_node
    assert PLAN.per_node * PLAN.memory <= hub.NODE_GIB * (1 - hub.RESERVED)
    assert PLAN.per_node * PLAN.cores <= hub.NODE_CORES
    assert PLAN.seconds <= 60 * hub.MINUTES


def test_plan_of_known_figures():
    """Server 100 MB, kernel 973.741824 MB: 1 GiB. 30 s of work in 300 s: a tenth of a core."""
    m = {
        "server peak MB, most": 100.0, "chapter 01 MB": 500.0, "chapter 02 MB": 973.741824, "chapter 01 processor s": 2000.0,
        "kernel processor s, median": 25.0, "server processor s, median": 5.0,
    }  # fmt: skip
    p = hub.plan(57, m)
    assert (p.hungriest, p.memory, p.limit, p.cores) == ("02", 1.0, 1.5, 0.1)
    assert (p.per_node, p.nodes) == (
        28,
        3,
    )  # 28.8 GiB for students; 57 are one more than two nodes hold
    assert p.seconds == pytest.approx(28 * 30 / 8)
    with pytest.raises(ValueError, match="at least one"):
        hub.plan(0, m)


def test_results_without_a_class_are_refused():
    with pytest.raises(ValueError, match="kernel processor s, median"):
        hub.measured("## flows.py\n```\nstudents    12\n```\n")


def test_tables_of_the_page():
    text = hub.measured_page() + hub.computed_page()
    assert f"{MEASURED['students']:.0f} students at once" in text
    assert f"{PLAN.per_node} students on a node, {PLAN.nodes} nodes for 200" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(
        a.count("|") == b.count("|")
        for a, b in zip(rows, rows[1:], strict=False)
        if b.startswith("|--")
    )


# ---------------------------------------------------------------- the files


def test_keys_of_the_values_are_the_charts():
    """The keys that this file uses, of those in the chart's schema (4.x): a typo would be refused by helm."""
    known = {
        "hub": {"config"},
        "proxy": {"https"},
        "singleuser": {
            "image", "defaultUrl", "startTimeout", "memory", "cpu", "extraEnv", "storage",
        },
        "scheduling": {"podPriority", "userPlaceholder"},
        "cull": {"enabled", "timeout", "every"},
    }  # fmt: skip
    assert set(VALUES) <= set(known)
    for part, keys in known.items():
        assert set(VALUES.get(part, {})) <= keys, part
    assert all(isinstance(v, str) for v in VALUES["singleuser"]["extraEnv"].values())
    assert VALUES["singleuser"]["extraEnv"]["PYTHONPATH"] == f"/home/jovyan/{hub.FOLDER}"
    assert VALUES["hub"]["config"]["Spawner"]["notebook_dir"] == "/home/jovyan"
    assert (
        VALUES["hub"]["config"]["JupyterHub"]["authenticator_class"] != "dummy"
    )  # the chart's default


def test_kernels_of_one_machine_do_not_listen_on_ports():
    c = Config()
    path = ROOT / "deploy" / "tljh.py"
    exec(compile(path.read_text(encoding="utf8"), str(path), "exec"), {"get_config": lambda: c})
    assert "--KernelManager.transport=ipc" in c.Spawner.args
    name = "u" * 32  # the longest name of a Unix user
    spawner = SimpleNamespace(user=SimpleNamespace(name=name))
    folder = c.Spawner.environment.get_value({})["JUPYTER_RUNTIME_DIR"](spawner)
    assert name in folder and len(f"{folder}/kernel-{uuid.uuid4()}-ipc-5") <= 107


def test_image_has_the_books_versions():
    image, book = pins(".binder/requirements.txt"), pins("requirements.txt")
    assert {name for name in image if name not in book} == {"nbgitpuller"}
    assert {n: v for n, v in image.items() if n in book} == {n: book[n] for n in image if n in book}
    needs = {
        "torch",
        "torchdiffeq",
        "numpy",
        "matplotlib",
        "anywidget",
        "jupyterlab",
        "scikit-learn",
        "safetensors",
    }
    assert needs <= set(image)
    setup = (ROOT / "tests" / "benchmarks" / "classroom_setup.py").read_text(encoding="utf8")
    assert f'"nbgitpuller=={image["nbgitpuller"]}"' in setup, (
        "the class is tested with another puller"
    )


def test_binder_scripts():
    script = ROOT / ".binder" / "postBuild"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    version = (ROOT / ".binder" / "runtime.txt").read_text().strip()
    assert version in {"python-3.11", "python-3.12", "python-3.13"}


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize("path", chapters(), ids=lambda p: p.name[:2])
def test_link_of_a_chapter(path):
    """Read back as nbgitpuller does: this repository, this branch, and a chapter that is there."""
    parts = urlsplit(hub.link("https://hub.example.edu/", path))
    query = {k: v[0] for k, v in parse_qs(parts.query, strict_parsing=True).items()}
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))["repository"]
    assert (parts.netloc, parts.path) == ("hub.example.edu", "/hub/user-redirect/git-pull")
    assert (query["repo"], query["branch"]) == (config["url"], config["branch"])
    assert "branch=work&" in hub.link("https://hub.example.edu/", path, "work")
    lab, tree, folder, *rest = query["urlpath"].split("/")
    assert (lab, tree, folder) == ("lab", "tree", query["targetpath"])
    assert (ROOT / "/".join(rest)).is_file()


def test_page_names_this_repository_alone():
    address = hub.repository()[0]
    found = re.findall(r"https://github\.com/[\w.-]+/[\w.-]+", PAGE)
    assert found and set(found) == {address}
