"""Probing the states of a run's successes, as its settings say."""

from pathlib import Path

from ..agent.context import Context
from ..agent.retries import RETRY, retries
from ..env.pool import EnvPool
from ..exploration.probing import Probed, probe
from ..models.load import chat_model
from ..prompts import Prompts
from ..settings import Play, Probing, part
from .config import ExploreConfig
from .console import show, told_cost
from .resolve import horizon, policy_of, texts, world


def run_probe(config: ExploreConfig, run: Path, settings: Probing, out: Path) -> Probed:
    """Probe a run that was explored with these settings; ``out`` is the file to write."""
    make, _ = world(config.model_copy(update={"tasks": 1}))  # they are the run's
    policy = policy_of(config)
    context = Context(
        policy=policy,
        reflector=policy if config.reflector is None else chat_model(config.reflector),
        envs=EnvPool(make),
        prompts=texts(config.prompts) or Prompts(),
        play=part(config, Play).model_copy(update={"max_turns": horizon(config)}),
        retry=retries(RETRY, config.tries),
    )
    found = probe(run, make, context, settings, out, concurrency=config.concurrency)
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
