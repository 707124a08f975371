"""Which tests enter which function of `lib`, and what they say of a fault."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from .faults import Fault, planted
from .forks import ROOT, Planted, fork

FOLDERS = ("data", "diffusion", "flows", "ode", "vae", "results", "weights", "fuzz")
OPTIONS = ["-q", "-x", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
OPTIONS += ["-p", "no:nbval", "-W", "ignore"]
PATIENCE = 900  # seconds for one file of tests, when the map is made


def test_files() -> list[Path]:
    """The tests of `lib` (not those of pages, chapters, teaching tools and killed trainings)."""
    folders = [ROOT / "tests" / f for f in FOLDERS] + [ROOT / "tests"]
    found = {f for folder in folders for f in folder.glob("test_*.py")}
    return sorted(found | {ROOT / "tests" / "train" / "test_fit.py"})


def digest(*files: Path) -> str:
    """Changes with the content of the files."""
    h = hashlib.sha256()
    for file in files:
        h.update(f"{file.name} {file.stat().st_size}\n".encode() + file.read_bytes())
    return h.hexdigest()[:16]


def names(tree: ast.AST, prefix: str) -> Iterator[str]:
    """Every function and class of a text, by its qualified name."""
    for node in ast.iter_child_nodes(tree):
        inside = prefix
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inside = f"{prefix}.{node.name}"
            yield inside
        yield from names(node, inside)


def functions() -> str:
    """Changes when a function of `lib` comes, goes, or moves: then the map is made anew."""
    files = sorted((ROOT / "lib").rglob("*.py"))
    found = [n for f in files for n in names(ast.parse(f.read_text("utf8")), str(f))]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:8]


class Recorder:
    """A pytest plugin: seconds of each test, and the functions of `lib` that it enters."""

    def __init__(self):
        self.tests: dict[str, dict] = {}
        self.lib = str(ROOT / "lib") + "/"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        seen: set[tuple[str, str]] = set()

        def enter(frame, event, arg):
            code = frame.f_code
            if code.co_filename.startswith(self.lib):
                seen.add((code.co_filename, code.co_qualname))

        start = time.process_time()
        sys.settrace(enter)  # called at each call of a function, and for nothing inside it
        try:
            return (yield)
        finally:
            sys.settrace(None)
            functions = sorted({f"{Path(f).relative_to(ROOT)}:{plain(q)}" for f, q in seen})
            self.tests[item.nodeid] = {"s": time.process_time() - start, "enters": functions}

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.tests.setdefault("failed", {})[report.nodeid] = report.when


def plain(qualified: str) -> str:
    """`f.<locals>.g` as `faults` writes it: `f.g`; what a comprehension does is its function's."""
    parts = [p for p in qualified.split(".") if p != "<locals>"]
    return ".".join(
        p for p in parts if p not in ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>")
    )


class Chosen:
    """A pytest plugin: these tests, in this order; remembers the first that fails."""

    def __init__(self, tests: list[str]):
        self.rank = {t: k for k, t in enumerate(tests)}
        self.first = None

    def pytest_collection_modifyitems(self, items):
        items[:] = sorted(
            (i for i in items if i.nodeid in self.rank), key=lambda i: self.rank[i.nodeid]
        )

    def pytest_runtest_logreport(self, report):
        if report.failed and self.first is None:
            self.first = report.nodeid


class Suite:
    """The tests of `lib` and what they enter; made once and kept under `_build`."""

    def __init__(self, folder: Path, say=print):
        folder.mkdir(parents=True, exist_ok=True)
        self.tests: dict[str, dict] = {}
        self.files: dict[str, str] = {}
        lib = functions()
        for file in test_files():
            name = str(file.relative_to(ROOT))
            self.files[name] = digest(file)
            kept = folder / f"{name.replace('/', '.')}.{self.files[name]}.{lib}.json"
            if not kept.exists():
                start = time.monotonic()
                found = self._record(name)
                kept.write_text(json.dumps(found))
                say(f"  {name}: {len(found)} tests, {time.monotonic() - start:.0f} s")
            self.tests |= json.loads(kept.read_text())
        self.enters = defaultdict(set)
        for test, about in self.tests.items():
            for function in about["enters"]:
                self.enters[function].add(test)

    @staticmethod
    def _record(name: str) -> dict:
        def work():
            recorder = Recorder()
            pytest.main([*[o for o in OPTIONS if o != "-x"], name], plugins=[recorder])
            return recorder.tests

        how, found = fork(work, PATIENCE)
        if how != "done" or not found:
            raise SystemExit(f"{name} could not be run without a fault: {how}")
        if failed := found.pop("failed", None):
            raise SystemExit(f"tests fail without a fault: {', '.join(failed)}")
        return found

    def covering(self, fault: Fault, budget: float) -> list[str]:
        """The tests that enter the fault's function: the module's own first, then the quick ones.

        At most `budget` seconds of them, and always all of the module's own file that enter it.
        """
        where = fault.where
        found = self.enters.get(f"{fault.name}:{where}", set())
        if not found:  # the text of a module or class, run at import
            prefix = f"{fault.name}:{where}." if where else f"{fault.name}:"
            found = {t for f, tests in self.enters.items() if f.startswith(prefix) for t in tests}
        stem = Path(fault.name).stem
        own = lambda t: Path(t.split("::")[0]).stem == f"test_{stem}"
        ordered = sorted(found, key=lambda t: (not own(t), self.tests[t]["s"]))
        out, spent = [], 0.0
        for test in ordered:
            spent += self.tests[test]["s"]
            if spent > budget and not own(test):
                break
            out.append(test)
        return out

    def judge(self, fault: Fault, budget: float) -> dict:
        """What the tests say: caught by which of them, or not."""
        tests = self.covering(fault, budget)
        if not tests:
            return {"verdict": "survived", "tests": 0}
        file = ROOT / fault.name
        expected = sum(self.tests[t]["s"] for t in tests)

        def work():
            tree = planted(file.read_text(encoding="utf8"), fault)
            sys.meta_path.insert(0, Planted(file, tree))
            own = [t for t in tests if t.startswith(tests[0].split("::")[0] + "::")]
            for some in (own, [t for t in tests if t not in own]):  # collecting takes its time
                chosen = Chosen(some)
                files = list(dict.fromkeys(t.split("::")[0] for t in some))
                code = pytest.main([*OPTIONS, *files], plugins=[chosen]) if files else 0
                if code in (1, 2):  # a test failed, or the tests could not be imported
                    return chosen.first or "import"
                if code not in (0, 5):
                    raise RuntimeError(f"pytest ended with {code}")
            return None

        how, found = fork(work, 4 * expected + 30)
        if how == "done" and found is None:
            return {"verdict": "survived", "tests": len(tests)}
        return {"verdict": "caught", "by": found or how, "tests": len(tests)}
