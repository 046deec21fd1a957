"""One training in one process or in several, as ``accelerate launch`` starts them, and where it is tracked.

Each process runs its share of a step's forward passes. What they have to tell each other once a step is small, the
gradients of the adapter; so these are summed, and nothing wraps the model. A process may have more passes than another.
"""

import logging
import os
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from leafe_graph.errors import MissingDependency

from .config import TrainConfig

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

T = TypeVar("T")


def processes() -> int:
    """How many were launched together; known before torch is imported."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def accelerator(config: TrainConfig) -> "Accelerator":
    """This process among the others, with the trackers of ``config.report_to`` started.

    Raises:
        MissingDependency: a tracker is not installed.
    """
    for tracker in config.report_to:
        if find_spec(tracker) is None:
            raise MissingDependency(
                f"report_to={tracker!r} needs {tracker}: pip install {tracker}", needed_for="tracking a training"
            )
    import torch
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    folders = ProjectConfiguration(project_dir=str(config.out), logging_dir=str(config.out / "tracking"))
    if processes() > 1 and os.environ.get("RANK") != "0":
        logging.getLogger("leafe_graph").setLevel(logging.ERROR)  # the first process says it
    started = Accelerator(cpu=not torch.cuda.is_available(), log_with=config.report_to or None, project_config=folders)
    if config.report_to:
        settings = {name: str(value) for name, value in config.model_dump(mode="json").items() if value is not None}
        name = "/".join(config.out.absolute().parts[-2:])
        # Those of trackers that are not asked for are not looked at.
        started.init_trackers(config.project, settings, {"wandb": {"name": name}, "mlflow": {"run_name": name}})
    return started


def of_first(started: "Accelerator", make: Callable[[], T]) -> T:
    """What the first process makes, in all of them: what takes long on a machine's disk or processor is done once."""
    from accelerate.utils import broadcast_object_list

    if started.num_processes == 1:
        return make()
    held: list[Any] = [make() if started.is_main_process else None]
    broadcast_object_list(held)
    made: T = held[0]
    return made


def joined(started: "Accelerator", own: dict[int, Any]) -> dict[int, Any]:
    """What all processes have, in each of them."""
    from accelerate.utils import gather_object

    if started.num_processes == 1:
        return own
    return dict(gather_object([*own.items()]))


def add_up(started: "Accelerator", values: Iterable[float]) -> list[float]:
    """Sums over the processes."""
    import torch

    own = list(values)
    if started.num_processes == 1:
        return own
    summed: list[float] = started.reduce(torch.tensor(own, dtype=torch.float64, device=started.device)).tolist()
    return summed


def add_up_gradients(started: "Accelerator", weights: Iterable["torch.nn.Parameter"]) -> None:
    """Give each process the sum of all gradients, in one message."""
    import torch
    from torch.nn.utils import parameters_to_vector, vector_to_parameters

    if started.num_processes == 1:
        return
    weights = list(weights)
    own = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    vector_to_parameters(started.reduce(parameters_to_vector(own)), own)
    for weight, grad in zip(weights, own, strict=True):
        weight.grad = grad
