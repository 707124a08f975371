"""What a class needs: links that open a chapter on a JupyterHub, and the machines for a number of students.

usage: hub.py links https://hub.example.edu      a link for each chapter
       hub.py plan [students]                     memory, processors and nodes, with the arithmetic

The plan starts from what `tests/benchmarks/classroom.py` measured, which stands in `tests/benchmarks/RESULTS.md`.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import yaml
from notebooks import ROOT

FOLDER = "deep-generative-models"  # in a student's home; the same whatever the repository is called


def repository() -> str:
    """The address of the repository, from the one place that names it."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def link(hub: str, path: Path, repo: str | None = None, branch: str = "main") -> str:
    """The nbgitpuller link that brings the book to a student's home and opens the chapter `path` in JupyterLab."""
    query = {
        "repo": repo or repository(),
        "branch": branch,
        "targetpath": FOLDER,
        "urlpath": f"lab/tree/{FOLDER}/chapters/{path.name}",
    }
    text = "&".join(f"{key}={quote(value, safe='/:')}" for key, value in query.items())
    return f"{hub.rstrip('/')}/hub/user-redirect/git-pull?{text}"
