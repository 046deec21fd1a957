"""What the subcommands do. Imported only once a command line has been understood."""

from collections.abc import Callable
from typing import Any

from .cli.demo import run_demo
from .cli.look import run_compare, run_envs, run_report, run_show
from .cli.runs import run_prune, run_rounds
from .cli.serve import run_serve
from .phases.evaluate import run_eval
from .phases.explore import run_explore
from .phases.learn import run_demonstrate, run_export, run_train

COMMANDS: dict[str, Callable[[Any], object]] = {
    "explore": run_explore,
    "demonstrate": run_demonstrate,
    "export": run_export,
    "train": run_train,
    "eval": run_eval,
    "compare": run_compare,
    "show": run_show,
    "serve": run_serve,
    "report": run_report,
    "prune": run_prune,
    "envs": run_envs,
    "run": run_rounds,
    "demo": run_demo,
}
