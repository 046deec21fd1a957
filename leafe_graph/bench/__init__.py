"""``leafe bench``: many methods under one ledger, as a YAML file says.

A *cell* is a method with one setting and one training seed; it is learned as a run of rounds, then judged. Cells run in
processes side by side, and what is done is seen by the files that are there, so a killed bench goes on.

Floor 10: it may know the floors below.
"""

from .config import BenchConfig, Tune
from .loop import bench
from .reading import read_bench

__all__ = ["BenchConfig", "Tune", "bench", "read_bench"]
