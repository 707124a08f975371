"""The checkers of the exercises, one module per chapter, loaded by `lib.teach.check`."""
