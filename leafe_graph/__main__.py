"""``python -m leafe_graph``: the ``leafe`` command."""

import sys

from .cli.main import main

if __name__ == "__main__":  # what reads the package's docstrings imports this, too
    sys.exit(main())
