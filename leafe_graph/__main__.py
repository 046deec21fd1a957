"""``python -m leafe_graph``: the ``leafe`` command."""

import sys

from .cli import main

sys.exit(main())
