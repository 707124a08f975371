"""What `book/benchmarks.md` says of a GPU, from what `make gpu` has written.

`book/results/bench_cuda.json`: beside the other libraries; `limits.json`: how near to the card's
limits; `gpu.json`: tests, chapters, steps of recipes, trainings. Any of them may be missing.
"""

from __future__ import annotations

from pathlib import Path

from notebooks import code, read
from proof import compared, missing, results, table, title

TASKS = ("forward", "train")


def machine(found: dict, only: tuple[str, ...] = ()) -> str:
    """The card, versions, commit, date, and what else has to be known of a file of results (or of some parts)."""
    versions = ", ".join(
        f"{n} {v}" for n, v in found["versions"].items() if n in ("python", "torch")
    )
    said = f"{found['card']}; {versions}; commit {found['commit']}, {found['date']}."
    others = {
        k: c
        for k, c in found.get("commits", {}).items()
        if c != found["commit"] and (not only or k in only)
    }
    if others:
        older = ", ".join(f"{part} {c}" for part, c in others.items())
        said += f" Other commits (a + stands for changes that were not committed): {older}."
    return " ".join([said, *found.get("notes", [])])


def _percent(share: float) -> str:
    return f"{float(f'{100 * share:.2g}'):g}%"  # two digits, and 100 is 100


def find(rows: list[dict], work: str, task: str) -> dict | None:
    """The row of a piece of work, if it was measured."""
    return next((r for r in rows if r["work"] == work and r["task"] == task), None)


def beside(paths: list[Path]) -> str:
    """The other libraries on a GPU, and how the autoregressive flows were before."""
    found = results("bench_cuda.json")
    if found is None:
        return missing("make gpu PARTS=bench")
    parts = [compared(found, "###", " on a GPU")]
    return "\n".join([*parts, *_passes(found)])


def _passes(found: dict) -> list[str]:
    """The ratios of an autoregressive flow's inverse before and after it took full passes."""
    before = found.get("before")
    if before is None:
        return []
    now = {(r["case"], r["task"], r["peer"]): r["ratio"] for r in found["rows"]}
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for r in before["rows"]:
        if (key := (r["case"], r["task"], r["peer"])) in now:
            name = f"{r['case'].partition(',')[0]}, {r['task']}", r["peer"]
            pairs.setdefault(name, []).append((r["ratio"], now[key]))
    spread = lambda values: f"{min(values):.2f} to {max(values):.2f}"
    lines = [(*name, *map(spread, zip(*both, strict=True))) for name, both in pairs.items()]
    return [
        "### What the card changed",
        "",
        "The inverse of an autoregressive flow finds one coordinate after the other. On a processor `lib` computes for each "
        "coordinate only what it needs, which spares most of the arithmetic. On the card that was slower than the others, who "
        "make a full pass for each coordinate: a call takes its time there however little it does, and our way makes more of "
        "them. Now `from_base` makes full passes on a GPU too while they are small (`passes_pay` in `lib/flows/made.py`).",
        "",
        table(("work, D = 2 to 64", "beside", "ours / theirs, before", "now"), lines),
        "",
        f"Before: {before['what']}; commit {before['commit']}, another start of the same kind of card earlier that day.",
        "",
    ]


def shares(paths: list[Path]) -> str:
    """How near to the card's limits; what follows from it."""
    found = results("limits.json")
    if found is None:
        return missing("make gpu PARTS=limits")
    earlier = found.get("earlier", [])
    rows = [r for run in (found, *earlier) for r in run["rows"]]
    head = ("work", "task", "ms", "TFLOP/s", "of the limit", "GB/s", "of a copy", "peak MB")
    lines = [
        (
            *(r["work"], r["task"], f"{r['milliseconds']:.3g}", f"{r['teraflops']:.3g}"),
            *(_percent(r["of the limit"]), f"{r['gigabytes a second']:,.0f}"),
            *(_percent(r["of the copy"]), f"{r['peak MB']:,}"),
        )
        for r in rows
    ]
    parts = [
        f"{machine(found)} {_measured(found['limits'])} "
        'Operations are those of products and convolutions, and "of the limit" is their rate over '
        "the limit of the row's precision; bytes are what the calls read and "
        "write, one by one. Peak MB is the largest so far within one work, so it never falls from row to row.",
        "",
        *(_kept(run) for run in earlier),
        table(head, lines),
        "",
        *_small(rows),
        *_adaptive(rows),
        *_unet(rows),
    ]
    return "\n".join(parts)


def _measured(top: dict) -> str:
    """A card's own limits."""
    return (
        f"The card's own limits, measured: a copy moves {top['bytes'] / 1e12:.2f} TB/s; products of matrices "
        f"reach {top['float32'] / 1e12:.1f} TFLOP/s in float32, {top['tf32'] / 1e12:.0f} in TF32 and "
        f"{top['bfloat16'] / 1e12:.0f} in bfloat16."
    )


def _kept(run: dict) -> str:
    """Which rows are of an earlier run, and what has to be known of that."""
    works = "; ".join(dict.fromkeys(r["work"] for r in run["rows"]))
    return f"Of an earlier run ({works}): {machine(run)} {_measured(run['limits'])}\n"


def _small(rows: list[dict]) -> list[str]:
    """Small and large batches in float32."""
    few, many = "RealNVP, D = 64, batch 1024", "RealNVP, D = 64, batch 262144"
    small, large = (find(rows, work, "forward, float32") for work in (few, many))
    if not (small and large):
        return []
    plain = [r for r in rows if r["task"].startswith(("forward, float32", "train, float32"))]
    low = [r["of the limit"] for r in plain if r["of the limit"] < 0.05]
    high = [r for r in plain if r["of the limit"] >= 0.05]
    busy = [r["of the limit"] for r in high]
    moved = [r["of the copy"] for r in high]
    return [
        f"**Small work leaves the card idle.** With 256 times as many points RealNVP's pass takes "
        f"{large['milliseconds'] / small['milliseconds']:.1f} times as long: what costs time at batch 1024 is to start each call, "
        f"not what it does. In float32 the small batches reach {_percent(min(low))} to {_percent(max(low))} of the card's arithmetic. The large "
        f"ones, and convolutions, reach {_percent(min(busy))} to {_percent(max(busy))} of its arithmetic and "
        f"{_percent(min(moved))} to {_percent(max(moved))} of its bandwidth at once. For small flows a GPU brings little, unless "
        f"the batch grows with it.",
        "",
    ]


def _adaptive(rows: list[dict]) -> list[str]:
    """What TF32's rounding costs an adaptive solver: operations of one call, in either precision."""
    work = "CNF, D = 64, 3 x 512, Hutchinson, batch 16384"
    some = [find(rows, work, f"{t}, {how}") for t in TASKS for how in ("float32", "tf32")]
    if not all(some):
        return []
    ms = [r["milliseconds"] for r in some]
    done = [r["milliseconds"] * r["teraflops"] / 1e3 for r in some]
    verdict = (
        "the training step is slower for it" if ms[3] > ms[2] else "the training step gains less"
    )
    return [
        f"**An adaptive solver can lose by TF32.** The same CNF does {done[1] / done[0]:.1f} times as many operations in a forward "
        f"pass with TF32 as in float32, and {done[3] / done[2]:.1f} times as many in a training step. The likely reason, "
        f"which was not traced: at a tolerance of 1e-5 the solver takes TF32's rounding (a part in two thousand) for an error of its steps, "
        f"and makes more of them. So TF32's higher rate gains "
        f"little in a forward pass ({ms[0]:.1f} to {ms[1]:.1f} ms), and {verdict} ({ms[2]:.1f} to {ms[3]:.1f} ms). `cnf-mnist` in full mode uses TF32; what it gains or loses there was not measured.",
        "",
    ]


def _unet(rows: list[dict]) -> list[str]:
    """What each thing that is to make the U-Net faster brings."""
    work = "U-Net, 35.8M parameters, batch 256"
    have = {r["task"]: r["milliseconds"] for r in rows if r["work"] == work}
    plain, tf32, last, half = (
        have.get(f"forward, {how}")
        for how in (
            "float32, contiguous",
            "tf32, contiguous",
            "tf32, channels_last",
            "bfloat16, channels_last",
        )
    )
    if not (plain and tf32 and last and half):
        return []
    order = (
        f"channels_last makes it slower, {last:.1f} ms. The likely reason, which was not profiled: torch's group norm "
        "on a GPU works on contiguous memory, so the pictures are copied there and back around each norm"
        if last > tf32
        else f"channels_last makes it faster, {last:.1f} ms"
    )
    text = (
        f"**For the U-Net TF32 does nearly everything.** A forward pass takes {plain:.1f} ms in plain float32 and {tf32:.1f} ms "
        f"with TF32; {order}. With bfloat16 and channels_last, as the CIFAR-10 recipe runs, it is {half:.1f} ms, "
        f"{plain / half:.2f} times faster than plain float32"
        + (f" and no faster than TF32 alone ({plain / tf32:.2f} times)." if half >= tf32 else ".")
    )
    open_ = [
        name
        for name, part in (
            ("compilation", "forward, bfloat16, channels_last, compiled"),
            ("bfloat16 without channels_last", "forward, bfloat16, contiguous"),
            ("training steps", "train, float32, contiguous"),
        )
        if part not in have
    ]
    if open_:
        text += f" Not measured: {', '.join(open_)}."
    return [text, ""]


def runs(paths: list[Path]) -> str:
    """Tests, chapters, and trainings that were cut short."""
    found = results("gpu.json")
    if found is None:
        return missing("make gpu PARTS='tests chapters rates'")
    parts = [machine(found), ""]
    if tests := found.get("tests"):
        parts += [
            f"**Tests.** {tests['passed']:,} tests of `lib` passed on the card, {tests['failed'] + tests['error']} failed and "
            f"{tests['skipped']} were skipped, in {tests['seconds']} s."
        ]
        if tests["which failed"]:
            parts += [
                "Failed:",
                "",
                *[f"- `{name.removeprefix('tests/')}`" for name in tests["which failed"]],
            ]
        parts += ["", tests["since"]] if "since" in tests else []
        parts += [""]
    if chapters := found.get("chapters"):
        wrong = [name for name, r in chapters.items() if "error" in r]
        whole = len(chapters) - len(wrong)
        parts += [
            f"**Chapters.** {whole} of {len(chapters)} ran in full mode from the first cell to the last, several at a time, "
            f"on the machine that has the card. {_where(paths, chapters)}",
            "",
            table(
                ("chapter", "seconds", "its slowest cell, s", "error"),
                [
                    (
                        *(title(path), f"{r['seconds']:.0f}"),
                        f"{max(r['slow cells'].values()):.0f}" if r["slow cells"] else "below 3",
                        r.get("error", ""),
                    )
                    for path in paths
                    if (r := chapters.get(path.stem))
                ],
            ),
            "",
        ]
    if trainings := found.get("trainings"):
        parts += [
            f"**Trainings.** {len(trainings)} recipes at once on one card, each cut to between one and two and a half minutes and far fewer steps than "
            "planned: the bounds in nats compare with nothing. The bits of `mnist-maf` are set beside the published ones in chapter 5.",
            "",
            table(
                ("recipe", "steps", "of", "seconds", "compiled", "what came out, test"),
                [
                    (
                        *(f"`{name.replace('_', '-')}`", f"{r['steps']:,}"),
                        *(f"{r['steps of the recipe']:,}", f"{r['seconds']:.0f}"),
                        *("yes" if r["compiled"] else "no", _came(r["metrics"])),
                    )
                    for name, r in trainings.items()
                ],
            ),
            "",
        ]
    return "\n".join(parts)


def _where(paths: list[Path], ran: dict) -> str:
    """Which chapters computed on the card in that run, and which do by now."""
    number = lambda name: str(int(name[:2]))
    then = [number(p.stem) for p in paths if ran.get(p.stem, {}).get("on the card")]
    now = [number(p.stem) for p in paths if on_the_card(p)]
    if then:
        said = (
            f"Chapters that draw or train networks on images ({', '.join(then)}) did that on the card; the other models are "
            "small, and stay on the machine's processor."
        )
    else:
        said = "No chapter moved its models to the card in this run, so these seconds are a processor's, with the sizes of full mode."
    if more := [n for n in now if n not in then]:
        said += (
            f" By now chapters {', '.join(more)} do, where there is a card; none has run them yet."
        )
    return said


def on_the_card(path: Path) -> bool:
    """Whether a chapter puts anything on the device that `setup()` has chosen."""
    return any("session.device" in code(c) for c in read(path)["cells"] if c["cell_type"] == "code")


def _came(metrics: dict) -> str:
    if "bits" in metrics:
        return f"{metrics['bits']:.3f} {metrics['unit']}, standard error {metrics['stderr']:.3f}"
    return f"{metrics['-elbo of all']:.1f} {metrics['unit']} (minus the bound)"


PAGES = {
    "gpu beside": ("benchmarks", beside),
    "gpu limits": ("benchmarks", shares),
    "gpu runs": ("benchmarks", runs),
}
