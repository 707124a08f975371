"""What makes a chapter a lesson: checks, figures that answer, exercises. No mathematics of a model lives here."""

from . import style
from .exercise import check
from .explorable import explore
from .ledger import verify
from .session import Session, setup
from .source import show_source

__all__ = ["Session", "check", "explore", "setup", "show_source", "style", "verify"]
