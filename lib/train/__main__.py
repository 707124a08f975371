"""Train a recipe of the book by name, measure it, store its weights and a card.

    python -m lib.train --list                       every recipe, one a line
    python -m lib.train realnvp-mnist --mode full    at full size; the same again resumes it
    python -m lib.train realnvp-mnist --help         what else can be asked for
    torchrun --nproc-per-node=2 -m lib.train realnvp-mnist --mode full

Several trainings at once, for a figure or a table: python -m lib.vae.sweep, python -m
lib.vae.compress, python -m lib.results.
"""

import sys

from lib.train.catalogue import ENTRIES, find, table
from lib.train.stopping import Stopped


def main(argv: list[str] | None = None) -> None:
    """Hand the command line to the module of the recipe that it names.

    Ends with status 128 + its number after a signal, and 1 after a failure that a message explains.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "--list"):
        print(table() if words == ["--list"] else __doc__)
        sys.exit(0 if words else 2)
    try:
        entry = ENTRIES[find(words[0])]
    except ValueError as error:
        sys.exit(str(error))
    try:
        entry.main([entry.own, *words[1:]])
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except (FloatingPointError, MemoryError, ConnectionError, FileNotFoundError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
