"""Execute chapters and store the prints that nbval compares. usage: record.py [NN ...] (default all)

record.py --seconds executes nothing: it stores how long the cells took in the last build (book/results/cells.json)
and brings the comments of the slow ones up to date.
"""

from __future__ import annotations

import sys

from execute import Job, execute, relative
from notebooks import ROOT, chapters, dump, read, tags
from seconds import RECORD, refresh
from tidy import clean
from tidy import main as tidy


def main(only: list[str]) -> int:
    if only == ["--seconds"]:
        wrong = refresh(chapters(), ROOT / "_build" / "executed")
        print(wrong or f"stored {relative(RECORD)}")
        return 1 if wrong else tidy([])
    paths = [p for p in chapters() if not only or any(p.stem.startswith(n) for n in only)]
    if not paths:
        print(f"no chapter named {' '.join(only)}")
        return 1
    jobs = {p.stem: Job(p.stem, clean(read(p))) for p in paths}
    execute(list(jobs.values()), lambda job: print(f"{job.name}: {job.seconds:.1f} s", flush=True))
    code = 0
    for path in paths:
        job = jobs[path.stem]
        if job.error:
            print(f"\nFAILED {job.error}\n")
            code = 1
            continue
        nb = job.nb
        for cell, ran in zip(nb["cells"], job.executed.cells, strict=True):
            if cell["cell_type"] == "code" and "nbval-check-output" in tags(cell):
                cell["outputs"] = [dict(o) for o in ran.outputs]
                if {o.get("name") for o in cell["outputs"]} != {"stdout"}:
                    print(
                        f"{path.stem}: a cell tagged nbval-check-output must print, and show nothing "
                        f"else:\n{cell['source']}"
                    )
                    code = 1
        new = dump(clean(nb))
        if new != path.read_text(encoding="utf8"):
            path.write_text(new, encoding="utf8")
            print(f"stored {relative(path)}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
