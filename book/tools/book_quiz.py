"""The quiz of a chapter: a data file becomes questions that answer on the page.

``book/quizzes/09.yml`` is a list of questions. Each has ``ask`` and ``options``; an option is one text under
``right`` or ``wrong``, and ``why``. The directive ``{quiz} 09`` renders every option as ``<details>``: a reader
opens it with the mouse, the keyboard or a finger, with no script and no kernel, and reads why it is right or wrong.
``book/static/quiz.js`` only counts.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

QUESTIONS = 5  # a chapter has at least so many


def read_quiz(path: Path) -> list[dict]:
    """The questions of a file, as ``{"ask": str, "options": [{"text", "right", "why"}]}``.

    Raises ValueError that names the file and the question if something is missing or doubled.
    """
    quiz = []
    for number, item in enumerate(yaml.safe_load(path.read_text(encoding="utf8")) or [], 1):
        where = f"{path.name}, question {number}"
        if set(item) != {"ask", "options"}:
            raise ValueError(f"{where}: expected the keys ask and options, got {sorted(item)}")
        options = []
        for option in item["options"]:
            kind = set(option) - {"why"}
            if "why" not in option or kind not in ({"right"}, {"wrong"}):
                raise ValueError(
                    f"{where}: an option has right or wrong, and why; got {sorted(option)}"
                )
            right = "right" in option
            text = option["right" if right else "wrong"]
            options.append({"text": str(text), "right": right, "why": str(option["why"])})
        if sum(o["right"] for o in options) != 1:
            raise ValueError(f"{where}: exactly one option is right")
        quiz.append({"ask": item["ask"], "options": options})
    if len(quiz) < QUESTIONS:
        raise ValueError(f"{path.name}: at least {QUESTIONS} questions, got {len(quiz)}")
    return quiz


class Tagged(nodes.General, nodes.Element):
    """An HTML element that docutils does not know; ``tag`` names it, ``html`` holds its attributes."""


def visit(self, node: Tagged) -> None:
    self.body.append(self.starttag(node, node["tag"], "", **node.get("html", {})))


def depart(self, node: Tagged) -> None:
    self.body.append(f"</{node['tag']}>\n")


class Quiz(SphinxDirective):
    """``{quiz} NN``: the questions of ``book/quizzes/NN.yml``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "book" / "quizzes" / f"{self.arguments[0]}.yml"
        self.env.note_dependency(str(path))
        try:
            quiz = read_quiz(path)
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise self.error(str(error)) from error
        chapter = int(self.arguments[0])
        out = Tagged(tag="ol", classes=["quiz"])
        for number, question in enumerate(quiz, 1):
            entry = Tagged(tag="li", ids=[f"quiz-{chapter}-{number}"], classes=["quiz-question"])
            entry += self.parsed(question["ask"], path)
            for letter, option in zip("abcdefgh", question["options"], strict=False):
                entry += self.option(letter, option, path)
            out += entry
        return [out]

    def option(self, letter: str, option: dict, path: Path) -> Tagged:
        verdict = "Right." if option["right"] else "Wrong."
        kind = "right" if option["right"] else "wrong"
        details = Tagged(tag="details", classes=["quiz-option", f"quiz-{kind}"])
        summary = Tagged(tag="summary")
        summary += nodes.inline("", f"{letter})", classes=["quiz-letter"])
        summary += nodes.Text(" ")
        for paragraph in self.parsed(option["text"], path):
            # only text in a text element gets curly quotes
            summary += nodes.inline("", "", *paragraph.children)
        details += summary
        why = self.parsed(option["why"], path)
        why[0].insert(0, [nodes.strong("", verdict), nodes.Text(" ")])
        details += why
        return details

    def parsed(self, text: str, path: Path) -> list[nodes.Node]:
        holder = nodes.Element()
        self.state.nested_parse(
            StringList(text.splitlines(), str(path)), self.content_offset, holder
        )
        return holder.children


def setup(app) -> None:
    """Join the extension `book_ext`."""
    app.add_node(Tagged, html=(visit, depart))
    app.add_directive("quiz", Quiz)
