"""Probing the states of a run's successes, as its settings say."""

from pathlib import Path

from ..exploration.probing import Probed, probe
from ..method_settings import Probing
from .config import ExploreConfig
from .console import show, told_cost
from .resolve import asking, world


def run_probe(config: ExploreConfig, run: Path, settings: Probing, out: Path) -> Probed:
    """Probe a run that was explored with these settings; ``out`` is the file to write."""
    make, _ = world(config.model_copy(update={"tasks": 1}))  # they are the run's
    found = probe(run, make, asking(config), settings, out, concurrency=config.concurrency)
    show(
        f"probes: {out}",
        [
            ("states", found.states),
            ("actions tried beside those taken", found.trials),
            ("paths without room", found.unbegun),
            ("steps that snapshots spared", found.spared_steps),
            *told_cost(found.cost),
        ],
    )
    return found
