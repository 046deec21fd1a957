"""A round's training, in this process or in others."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from ..errors import LeafeError
from ..files import save_json
from ..phases.learn import run_train
from ..processes.apart import apart, run_guarded

if TYPE_CHECKING:
    from ..finetune.config import TrainConfig, TrainResult


def _train(config: "TrainConfig", accelerate: Path | None) -> "TrainResult":
    """Unsloth patches transformers while that is imported, which exploring did long ago: it needs a fresh process."""
    if accelerate is not None:
        return _launched(config, accelerate)
    if config.backend == "peft" or find_spec("unsloth") is None:
        return run_train(config)
    return apart(run_train, config)


def _launched(config: "TrainConfig", accelerate: Path) -> "TrainResult":
    """As many processes as the file says; what they came to is read from the adapter's folder."""
    from ..finetune.config import TrainResult

    settings = config.out / "train_config.json"
    save_json(settings, config.model_dump(mode="json"))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(accelerate)]
    code = run_guarded([*launch, "-m", "leafe_graph", "train", "--config", str(settings)])
    if code:
        raise LeafeError(f"the training ended with exit code {code}, see above; the same command again goes on")
    return TypeAdapter(TrainResult).validate_json((config.out / "result.json").read_text())
