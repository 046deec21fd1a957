"""Writing a playbook, as its settings say."""

from pathlib import Path

from ..exploration.curating import Curated, curate
from ..method_settings import Curating
from ..parsing import read_text
from .config import ExploreConfig
from .console import show, told_cost
from .resolve import asking


def run_curate(config: ExploreConfig, run: Path, settings: Curating, out: Path) -> Curated:
    """Write the playbook ``out`` from a run that was explored with these settings, their playbook among them."""
    before = "" if config.playbook is None else read_text(config.playbook)
    found = curate(run, before, asking(config), settings, out)
    told = [(name.replace("_", " "), value) for name, value in vars(found).items() if name != "cost"]
    show(f"playbook: {out}", [*told, *told_cost(found.cost)])
    return found
