"""The methods of the book, to read and to lift. Import the module you need: `from lib.data import ...`.

Nothing is imported here, so that `import lib` costs nothing.
"""

__version__ = "0.1.0"
