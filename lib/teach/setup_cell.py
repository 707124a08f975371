"""The first cell of every chapter; `tests/book/test_policy.py` compares it with each notebook."""

SETUP_CELL = """\
try:
    import lib.teach
except ImportError:  # not installed here (Colab): fetch this book's library and change nothing else
    import sys

    !git clone -q --depth 1 https://github.com/ORG/REPO book-source
    sys.path.insert(0, "book-source")
from lib.teach import check, setup, show_source, style, verify

session = setup()"""
