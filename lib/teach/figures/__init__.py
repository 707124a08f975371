"""The explorable figures, one module per chapter: `from lib.teach.figures import ch01`."""
