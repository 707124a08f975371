"""One training loop for every model: `for update in fit(model, data, steps=1000): ...`.

`python -m lib.train NAME` trains a recipe of the book; `python -m lib.train --list` names them.
"""

from lib.train.draws import Draws
from lib.train.loop import Data, Update, fit
from lib.train.stopping import Stopped

__all__ = ["Data", "Draws", "Stopped", "Update", "fit"]
