"""`python -m lib.results`: see `run.py`, where the code is, since worker processes import it by name."""

from lib.results.run import main

if __name__ == "__main__":
    main()
