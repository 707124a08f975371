"""Stand-in for Colab's own package: what notebooks and widgets ask of it, and nothing more."""

from . import output  # noqa: F401 -- Colab's kernel has it loaded, and anywidget looks for it
