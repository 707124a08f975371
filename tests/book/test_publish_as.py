"""`make publish-as`: one address, in every place, and it can be changed again."""

from __future__ import annotations

import re
import shutil
import subprocess

import policy
import publish_as
import pytest
import yaml
from notebooks import ROOT, chapters


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository's text files in a place of their own."""
    root = tmp_path_factory.mktemp("book")
    for path in publish_as.files(ROOT):
        there = root / path.relative_to(ROOT)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, there)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def _texts(root):
    return {p: p.read_text(encoding="utf8") for p in publish_as.files(root)}


def test_the_repository_names_one_address():
    """Whatever the address is now: no chapter, no page and no file has another placeholder or version."""
    address, version = publish_as.published(ROOT)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    assert (config["url"], config["branch"]) == (address, version)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["repository-code"] == address
    assert f'Repository = "{address}"' in (ROOT / "pyproject.toml").read_text()
    assert f"git clone {address}" in (ROOT / "README.md").read_text()


def test_publish_twice_then_nothing_changes(copy):
    names = [publish_as.parse(publish_as.published(copy)[0])]
    versions = [publish_as.published(copy)[1]]
    (copy / "book" / "near.md").write_text(
        "https://github.com/first-one/book-extra https://github.com/first-one/book.\n"
    )
    steps = [
        ("https://github.com/first-one/book", "v1"),
        ("https://github.com/first-one/book", "1.10"),  # no number for YAML
        ("https://github.com/Second/the.notes.git", "release/2"),
    ]
    for url, ref in steps:
        publish_as.publish(copy, url, ref)
        owner, name = publish_as.parse(url)
        address = f"https://github.com/{owner}/{name}"
        assert publish_as.published(copy) == (address, ref)
        for path, text in _texts(copy).items():
            for gone in set(names) - {(owner, name)}:
                old = publish_as.mentions(*gone).search(text)
                assert not old, f"{path.relative_to(copy)} still has {old[0]}"
        for path in chapters(copy):
            chapter = policy.Chapter.open(path, copy)
            assert not policy.RULES["setup_cell"](chapter)
            assert not policy.RULES["tidy"](chapter)
            text = path.read_text()
            assert f"--branch {ref} {address} " in text
            assert not re.search(rf"--branch {re.escape(versions[-1])} ", text)
        config = yaml.safe_load((copy / "_config.yml").read_text())["repository"]
        assert (config["url"], config["branch"]) == (address, ref)
        site = yaml.safe_load((copy / "CITATION.cff").read_text())["url"]
        assert site == f"https://{owner}.github.io/{name}/"
        names.append((owner, name))
        versions.append(ref)
    near = (copy / "book" / "near.md").read_text()
    assert near == "https://github.com/first-one/book-extra https://github.com/Second/the.notes.\n"
    before = _texts(copy)
    assert publish_as.publish(copy, steps[-1][0], steps[-1][1]) == []
    assert _texts(copy) == before


@pytest.mark.parametrize(
    ("url", "ref", "said"),
    [
        ("https://gitlab.com/me/book", "main", "Colab opens notebooks from github.com alone"),
        ("git@github.com:me/book", "main", "must look like"),
        ("https://github.com/me", "main", "must look like"),
        ("https://github.com/me/book; rm -rf x", "main", "must look like"),
        ("https://github.com/me/book", "-v1", "branch or a tag"),
        ("https://github.com/me/book", "a b", "branch or a tag"),
        ("https://github.com/me/book", "v1..v2", "branch or a tag"),
    ],
)
def test_what_cannot_be_an_address_changes_nothing(copy, url, ref, said):
    before = _texts(copy)
    with pytest.raises(ValueError, match=said):
        publish_as.publish(copy, url, ref)
    assert _texts(copy) == before
