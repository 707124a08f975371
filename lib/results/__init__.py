"""All models of the book on one protocol. Read `protocol.py`, `models.py`, then `store.py`.

`python -m lib.results`, or `make results`, writes lib/results/all_models.json; chapter 13 reads it.
"""
