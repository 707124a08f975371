"""A stand-in for a graphics card, where there is none: the device `card`, which computes on the processor.

It is as strict as CUDA where a program can go wrong: no mixing with the processor's tensors, no
`.numpy()`, no generator of the processor, and other random numbers than the processor's.
`BOOK_STANDIN=1` gives it to the fixture `device`; `python -m tests.standin 09` runs chapters on it.
"""

from .device import OFFSET, OnCard, install

__all__ = ["OFFSET", "OnCard", "install"]
