"""``python -m leafe_graph``: the ``leafe`` command."""

import sys

from .cli.main import main

sys.exit(main())
