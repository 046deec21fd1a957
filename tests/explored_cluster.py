"""What test_cluster_driver.py kills and interrupts: ``explored_cluster.py OUT WORLD DELAY WORKERS [ADDRESS]``."""

import sys
from pathlib import Path

from clusters import SnapshotWorld, World, play

from leafe_graph.settings import Workers

if __name__ == "__main__":
    out, world, delay, number, *address = sys.argv[1:]
    play(
        Path(out),
        {"World": World, "SnapshotWorld": SnapshotWorld}[world],
        delay=float(delay),
        workers=Workers(int(number), address=address[0] if address else None, cpus=0.1),
    )
