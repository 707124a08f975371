"""The live demos: a rehearsal of every one, from cold and offline, and what happens when something breaks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest
from demo import command, environment, prepare
from notebooks import ROOT, chapters
from sheets import sheets

SIZE = {"width": 1280, "height": 720}
WAIT = 240_000  # ms: a kernel that must still import torch, on a busy machine
READY = ".demo:not([hidden]) .live figure.explorable[data-ready='1']"

# Press every button of the run sheet: the figure's own sentence must follow, and the picture.
SHEET = """async (name) => {
  const demo = document.getElementById(name), f = demo.querySelector("figure.explorable");
  const look = () => [...f.querySelectorAll("canvas")].map((c) => c.toDataURL()).join("");
  const said = () => f.querySelector(".ex-panels").getAttribute("aria-label");
  const out = [];
  for (const b of demo.querySelectorAll(".sheet button[data-set]")) {
    const before = said(), was = look(), began = performance.now();
    b.click();
    while (said() === before && performance.now() - began < 4000) await new Promise((r) => setTimeout(r, 20));
    await new Promise((r) => setTimeout(r, 100));
    out.push([said(), look() !== was || b.dataset.set === "{}"]);
  }
  return out;
}"""

SEEN = """(name) => {
  const demo = document.getElementById(name), f = demo.querySelector("figure.explorable");
  const colours = [...f.querySelectorAll(".ex-panels canvas")].map((c) => {
    const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data, seen = new Set();
    for (let i = 0; i < d.length; i += 4) if (d[i + 3]) seen.add((d[i] << 16) | (d[i + 1] << 8) | d[i + 2]);
    return seen.size;
  });
  const r = f.getBoundingClientRect();
  const font = Math.min(...[...f.querySelectorAll("label, output, dt, dd, li, button")].map((e) => parseFloat(getComputedStyle(e).fontSize)));
  return { colours: Math.min(...colours), fits: r.bottom <= innerHeight + 1 && r.right <= innerWidth + 1, font,
    scrolls: document.documentElement.scrollHeight - innerHeight };
}"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """What `make demo` starts, for some chapters, with no way to a network for its kernels."""

    def __init__(self, only: list[str], empty, *, pool: bool, kernel: list[str] = (), options=()):
        folder, self.port = empty / "demos", free_port()
        self.notebooks = prepare(only, folder)
        nowhere = {k: "http://127.0.0.1:9" for k in ("http_proxy", "https_proxy", "all_proxy")}
        env = (
            environment(folder)
            | nowhere
            | {"no_proxy": "127.0.0.1,localhost", "BOOK_DATA": str(empty / "data")}
        )
        if kernel:  # in place of ipykernel's own
            spec = {"argv": kernel, "display_name": "Python 3", "language": "python"}
            (folder / "jupyter/kernels/python3").mkdir(parents=True)
            (folder / "jupyter/kernels/python3/kernel.json").write_text(json.dumps(spec))
        self.log = open(empty / "voila.log", "w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*command(self.port, browser=False, pool=pool, folder=folder), *options],
            cwd=ROOT,
            env=env,
            stdout=self.log,
            stderr=self.log,
        )
        for _ in range(240):
            try:
                urllib.request.urlopen(self.url(""), timeout=2).close()
                return
            except OSError:
                assert self.process.poll() is None, "Voila did not start"
                time.sleep(0.5)

    def url(self, path: str) -> str:
        return f"http://localhost:{self.port}/{path}"

    def has(self, kernel: str) -> bool:
        try:
            urllib.request.urlopen(self.url(f"api/kernels/{kernel}"), timeout=60).close()
            return True
        except urllib.error.HTTPError:
            return False

    def stop(self) -> None:
        if self.process.poll() is not None:
            return
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for child in children:
            if child.is_running():
                child.kill()
        self.log.seek(0)
        print(self.log.read()[-8000:])  # pytest shows it where a test has failed
        self.log.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory, browser):
    """All chapters, cold: no pool, so each page starts a kernel of its own, and no two at a time."""
    server = Server([], tmp_path_factory.mktemp("demo"), pool=False)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pooled(tmp_path_factory, browser):
    """Chapter 8 with its pool, as `make demo ONLY=08` serves it."""
    server = Server(["08"], tmp_path_factory.mktemp("pool"), pool=True)
    yield server
    server.stop()


def visit(browser, server, path: str, *, javascript: bool = True):
    """A page that may ask our server alone, and what went wrong on it."""
    context = browser.new_context(viewport=SIZE, java_script_enabled=javascript)
    page, faults = context.new_page(), []
    page.set_default_timeout(WAIT)

    def gate(route):
        if route.request.url.startswith((server.url(""), "data:", "blob:")):
            return route.continue_()
        faults.append(f"asks for {route.request.url}")
        return route.abort()

    page.route("**/*", gate)
    page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: faults.append(str(e)))
    page.on("response", lambda r: faults.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.goto(
        server.url(path), timeout=WAIT, wait_until="domcontentloaded" if javascript else "load"
    )
    return page, faults


def test_the_gallery_leads_to_every_demo(served, browser):
    page, faults = visit(browser, served, "")
    links = page.eval_on_selector_all(
        "a[href*='/voila/render/']", "(a) => a.map((x) => x.getAttribute('href'))"
    )
    want = [f"/voila/render/{p.name}#{e['figure']}" for p in chapters() for e in sheets(p)]
    assert links == want
    assert not faults
    page.context.close()


@pytest.mark.parametrize("path", chapters(), ids=lambda p: p.stem)
def test_rehearsal(served, browser, path):
    page, faults = visit(browser, served, f"voila/render/{path.name}")
    entries = sheets(path)
    for k, entry in enumerate(entries):
        name = entry["figure"]
        page.wait_for_selector(f"#{name} .live [data-ready='1']", state="attached", timeout=WAIT)
        if k:
            page.keyboard.press("n")
        page.wait_for_selector(f"#{name}:not([hidden])")
        page.wait_for_timeout(200)
        seen = page.evaluate(SEEN, name)
        assert seen["colours"] > 3 and seen["fits"] and seen["scrolls"] <= 0, seen
        assert seen["font"] >= 16, "large type"
        page.keyboard.press("r")
        assert page.is_visible(f"#{name} .sheet")
        said = page.evaluate(SHEET, name)
        page.keyboard.press("r")
        *steps, _ = said  # the last button is Reset
        for step, (sentence, moved) in zip(entry["steps"], steps, strict=True):
            assert step["alt"].replace("-", "−") in sentence.replace("-", "−"), (
                f"{step['set']}: {sentence}"
            )
            assert moved, f"{step['set']} does not move the picture"
        for slider in page.query_selector_all(f"#{name} input[type=range]")[:1]:
            slider.focus()
            before = slider.input_value()
            at_top = slider.evaluate("(s) => s.value === s.max")
            page.keyboard.press("ArrowLeft" if at_top else "ArrowRight")
            assert slider.input_value() != before
    assert not faults
    page.context.close()


def kernel_process(kernel: str) -> psutil.Process:
    """The process of a kernel, found by its connection file among those that this test started."""
    for child in psutil.Process().children(recursive=True):
        if any(kernel in part for part in child.cmdline()):
            return child
    raise AssertionError(f"no process for kernel {kernel}")


def test_a_kernel_that_dies_says_so_and_another_takes_its_place(pooled, browser):
    page, _ = visit(browser, pooled, "voila/render/08_continuous_flows.ipynb#time")
    page.wait_for_selector(READY, timeout=WAIT)
    first = page.get_attribute("#demos", "data-kernel")
    page.evaluate("document.querySelector('#time figure.explorable').explorable.set({ t: 0.62 })")
    page.wait_for_function(
        "document.querySelector('#time .ex-panels').getAttribute('aria-label').includes('t = 0.62')"
    )
    os.kill(kernel_process(first).pid, signal.SIGKILL)
    page.wait_for_selector("#notice:has-text('The kernel of this demo stopped')", timeout=WAIT)
    page.wait_for_function(
        f"document.querySelector('#demos')?.dataset.kernel !== '{first}'", timeout=WAIT
    )
    page.wait_for_selector(READY, timeout=WAIT)
    # at the settings that the class has just seen, and alive: Python answers again
    page.wait_for_function(
        "document.querySelector('#time .ex-panels').getAttribute('aria-label').includes('t = 0.62')"
    )
    page.evaluate("document.querySelector('#time figure.explorable').explorable.set({ t: 0.94 })")
    page.wait_for_function(
        "document.querySelector('#time .ex-panels').getAttribute('aria-label').includes('t = 0.94')"
    )
    page.context.close()


def test_a_page_that_goes_takes_its_kernel_along(served, browser):
    """Or an afternoon of demos fills the memory: each kernel holds 0.35 GB. The page is opened by its own address."""
    page, faults = visit(browser, served, "voila/render/09_denoising_diffusion.ipynb")
    page.wait_for_selector(READY, timeout=WAIT)
    kernel = page.get_attribute("#demos", "data-kernel")
    assert served.has(kernel)
    page.wait_for_load_state("networkidle")
    page.goto("about:blank")
    end = time.monotonic() + 60
    while served.has(kernel):
        assert time.monotonic() < end, "its kernel is still there"
        time.sleep(0.2)
    assert not faults
    page.context.close()


BROKEN_ONCE = """import os, sys
flag = sys.argv[1]
if not os.path.exists(flag):
    open(flag, "w").close()
    sys.exit("no memory, say")
os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", "-f", sys.argv[2]])
"""


def test_a_kernel_that_does_not_start_is_asked_once_more(tmp_path, browser):
    """Voila would let such a page wait for ever."""
    first = tmp_path / "first.py"
    first.write_text(BROKEN_ONCE)
    kernel = [sys.executable, str(first), str(tmp_path / "tried"), "{connection_file}"]
    # Voila beats once a second, not every ten; a dead kernel stays dead.
    options = [
        "--VoilaConfiguration.http_keep_alive_timeout=1",
        "--KernelManager.autorestart=False",
    ]
    server = Server(["09"], tmp_path, pool=False, kernel=kernel, options=options)
    try:
        page, faults = visit(browser, server, "voila/render/09_denoising_diffusion.ipynb")
        page.wait_for_selector(READY, timeout=WAIT)
        assert (tmp_path / "tried").exists() and not faults
        page.context.close()
    finally:  # prints what Voila said
        server.stop()


@pytest.mark.parametrize("script", ["explore.js", "demo.js"])
def test_a_script_that_does_not_load_leaves_the_still(served, browser, script):
    context = browser.new_context(viewport=SIZE)
    page = context.new_page()
    page.route(f"**/{script}*", lambda route: route.abort())
    page.goto(served.url("voila/render/09_denoising_diffusion.ipynb"), timeout=WAIT)
    assert page.is_visible("#notice:has-text('could not start')")
    still = page.query_selector(".ex-live img.ex-still")
    assert still.is_visible() and still.evaluate("(i) => i.naturalWidth") > 200
    assert "log signal-to-noise ratio is" in page.inner_text(".ex-live p")
    context.close()


def test_without_javascript_a_demo_is_its_stills(served, browser):
    page, _ = visit(browser, served, "voila/render/09_denoising_diffusion.ipynb", javascript=False)
    assert page.is_visible("text=This demo needs JavaScript to move")
    assert not page.is_visible("#waiting")
    stills = page.query_selector_all(".ex-live img.ex-still")
    assert len(stills) == 2 and all(s.is_visible() for s in stills)
    page.context.close()


def test_a_server_that_went_away_is_named_and_the_figure_stays(tmp_path, browser):
    server = Server(["09"], tmp_path, pool=False)
    page, _ = visit(browser, server, "voila/render/09_denoising_diffusion.ipynb")
    page.wait_for_selector(READY, timeout=WAIT)
    server.stop()
    page.wait_for_selector("#notice:has-text('The server does not answer')", timeout=WAIT)
    # a figure that computes in the browser goes on
    page.evaluate("document.querySelector('figure.explorable').explorable.set({ t: 0.5 })")
    page.wait_for_function(
        "document.querySelector('.ex-panels').getAttribute('aria-label').includes('t = 0.50')"
    )
    page.context.close()


def test_a_page_without_the_renderer_keeps_the_still(browser):
    """The page's form, where the script never comes, and where the browser cannot unpack the scenes."""
    from lib.teach.explorable import Scene, Slider, explore, renderer
    from lib.teach.scene import Panel

    def scene(a: float) -> Scene:
        panel = Panel((0, 1), (0, 1), xlabel="x", ylabel="y").line([0, 1], [0, a], 0, "a line")
        return Scene([panel], f"a line of slope {a:.2f} that says what is seen", {})

    figure = explore("A line", scene, [Slider("a", "a", 0, 1, 0.5, 0.25)]).html()
    page = browser.new_page(viewport=SIZE)
    page.set_content(f"<!doctype html><body>{figure}")
    assert page.is_visible("img.ex-still") and page.get_attribute("img.ex-still", "alt")
    page.add_init_script("delete globalThis.DecompressionStream")
    page.goto("about:blank")
    page.set_content(f"<!doctype html><body>{figure}<script>{renderer()[0]}</script>")
    page.wait_for_timeout(300)
    assert (
        page.is_visible("img.ex-still")
        and page.evaluate("document.querySelectorAll('img').length") == 1
    )
    page.close()


def test_a_demo_holds_no_copy_of_a_figure(tmp_path):
    for notebook in prepare(["09"], tmp_path / "demos"):
        cells = json.loads(notebook.read_text("utf8"))["cells"]
        code = "".join("".join(c["source"]) for c in cells)
        assert "from lib.teach.figures import ch09 as figures" in code and "Scene" not in code
