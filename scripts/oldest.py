"""Print the oldest version that pyproject.toml allows of each direct dependency, as constraints for pip.

python scripts/oldest.py sqlite postgres >oldest.txt      # of the package and these extras
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

BOUND = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?\s*>=\s*([\w.]+)")


def constraints(extras: Iterable[str], file: Path = Path(__file__).parents[1] / "pyproject.toml") -> Iterator[str]:
    """``NAME==VERSION`` of each dependency.

    Raises:
        SystemExit: one has no lower bound, or there is no such extra.
    """
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    if unknown := sorted(set(extras) - set(optional)):
        sys.exit(f"there is no extra {', '.join(unknown)}; there are {', '.join(optional)}")
    for dependency in [*project["dependencies"], *(each for extra in extras for each in optional[extra])]:
        if not (found := BOUND.match(dependency)):
            sys.exit(f"{dependency!r} has no lower bound: expected NAME>=VERSION")
        yield f"{found.group(1)}=={found.group(2)}"


if __name__ == "__main__":
    print("\n".join(constraints(sys.argv[1:])))
