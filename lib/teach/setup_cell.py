"""The first cell of every chapter, and the repository's address in it.

`ADDRESS` and `VERSION` are the one place that says where the book is published; `make publish-as`
writes them here and brings everything else in line. `tests/book` compares each notebook with the cell.
"""

ADDRESS = "https://github.com/ORG/REPO"
# The branch or tag of this page: its cell fetches the library of that very version.
VERSION = "main"

# Where lib can be imported, nothing happens. Elsewhere (Colab) git brings the page's own version, and
# pip only what is missing: without -U it leaves a package that is there alone, whatever its version, and
# without dependencies it has no reason to touch torch or numpy. The link puts lib into the working
# folder, so that after a restart of the kernel it can be imported at once.
SETUP_CELL = f"""\
try:
    import lib.teach
except ImportError:  # on Colab: fetch the library, add what is missing, replace nothing
    !git clone -q -c advice.detachedHead=no --depth 1 --branch {VERSION} {ADDRESS} book-source
    !ln -s book-source/lib; pip install -q --no-deps torchdiffeq safetensors anywidget psygnal
from lib.teach import check, setup, show_source, style, verify

session = setup()"""
