"""The model card, README.md beside the weights: what it was trained on and how, without this machine's paths."""

import json
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from leafe_graph.errors import MissingDependency
from leafe_graph.files import save_text
from leafe_graph.models.embedded import HUB
from leafe_graph.models.spec import ModelSpec
from leafe_graph.settings import Output, Place, marked
from leafe_graph.text import markdown_table

from .config import Retold, TrainConfig, TrainResult
from .objectives import objective, settings_of_others

_ELSEWHERE = marked(TrainConfig, Output, Place, Retold)
"""Settings that the card has in other words, or not at all."""
ADAPTER, MODEL = "ADAPTER-FOLDER", "MODEL-FOLDER"
"""What the card calls its own folder; an upload writes the repository's name there."""


def base_name(spec: str) -> tuple[str, bool]:
    """What a model spec's model is called, and whether that is a name on the hub; else it is a folder's last part."""
    said = ModelSpec.parse(spec)
    if said.folder:
        return said.folder.resolve().name, False
    return (HUB if said.embedded else said.weights), True


def write_card(config: TrainConfig, result: TrainResult, *, tasks: int) -> None:
    """Write README.md; ``tasks``: how many the rows come from."""
    try:
        from huggingface_hub import ModelCard, ModelCardData
    except ImportError as error:
        raise MissingDependency(extra="train", needed_for="the model card") from error

    base, on_hub = base_name(config.model)
    adapter = result.adapter is not None
    data = ModelCardData(
        base_model=base if on_hub else None,
        library_name="peft" if adapter else "transformers",
        license=_license(config.model),
        pipeline_tag="text-generation",
        tags=["leafe-graph", *(["lora"] if adapter else []), *(["gguf"] if result.gguf else [])],
    )
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(config, result, base=base, on_hub=on_hub, tasks=tasks)}")
    save_text(config.out / "README.md", str(card))


def _text(config: TrainConfig, result: TrainResult, *, base: str, on_hub: bool, tasks: int) -> str:
    elsewhere = _ELSEWHERE | settings_of_others(config.objective)
    settings = {
        **_what_trained(config),
        "went on from an adapter": "no" if config.adapter is None else "yes",
        **{k: v for k, v in config.model_dump(exclude=elsewhere).items() if v is not None},
    }
    outcome = {
        "optimiser steps": result.steps,
        "kept": f"step {result.kept_step}",
        "training loss, last epoch": _number(result.loss),
        "held-out loss": _number(result.eval_loss),
        "tokens run": f"{result.tokens:,}",
        "seconds": f"{result.seconds:.0f}",
        "backend": result.backend,
        "processes": result.processes,
    }
    rows = {kind: f"{count:,}" for kind, count in sorted(result.rows.items())}
    rows |= {f"token ids: {what}": f"{count:,}" for what, count in result.token_ids.items()}
    held_out = f" Held out: {_files(config.eval_data)}." if config.eval_data else ""
    parts = [
        f"# {'LoRA adapter' if result.adapter else 'Fine-tuned model'} of {base}",
        "Trained by leafe-graph on actions of an agent, each after its history. "
        f"Objective: {objective(config.objective, config).words}. Loss is on the action's tokens alone.",
        "## What it was trained on",
        f"{sum(result.rows.values()):,} rows of {tasks:,} task(s), from {_files(config.data)}.{held_out}",
        markdown_table(("rows", ""), rows.items()),
        "## Training",
        markdown_table(("outcome", ""), outcome.items()),
        markdown_table(("setting", ""), settings.items()),
        "Versions: " + ", ".join(_versions(result.backend)) + ".",
        *(["Warnings:\n\n" + "\n".join(f"- {warning}" for warning in result.warnings)] if result.warnings else []),
        "## How to load it",
        *(_loading_adapter(config, base=base, on_hub=on_hub) if result.adapter else _LOADING_MODEL),
    ]
    if result.merged:
        parts.append(f"`merged/` is base and adapter in one model of plain transformers, in {config.merged_dtype}.")
    if result.gguf:
        parts.append(f"`{result.gguf.name}` is the same for llama.cpp: `llama-cli -m {result.gguf.name}`.")
    return "\n\n".join(parts) + "\n"


def _what_trained(config: TrainConfig) -> dict[str, str]:
    """The adapter's shape, or that there is none."""
    if config.tune == "full":
        return {"weights": "all"}
    lora = _lora(config)
    targets = lora["target_modules"]
    return {
        "LoRA": f"rank {lora['r']}, alpha {lora['lora_alpha']:g}, dropout {lora['lora_dropout']:g}",
        "LoRA on": targets if isinstance(targets, str) else ", ".join(sorted({t.rpartition(".")[2] for t in targets})),
        "blocks": lora["layers_to_transform"] or "all",
    }


def _lora(config: TrainConfig) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((config.out / "adapter_config.json").read_text(encoding="utf-8"))
    return held


def _loading_adapter(config: TrainConfig, *, base: str, on_hub: bool) -> list[str]:
    from leafe_graph.models.folders import RANKS

    load = base if on_hub else f"FOLDER/{base}"
    here = config.model if ModelSpec.parse(config.model).embedded else f"local:{load}"
    trained = _lora(config)["r"]
    rank = next((r for r in RANKS if r >= trained), trained)
    return [
        f"""```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{load}")
model = PeftModel.from_pretrained(base, "{ADAPTER}")
tokenizer = AutoTokenizer.from_pretrained("{load}")
```""",
        f"""```sh
leafe serve --model {here if here == config.model or not on_hub else load} --adapter FOLDER
vllm serve {load} --enable-lora --max-lora-rank {rank} --lora-modules adapter={ADAPTER}
```""",
    ]


_LOADING_MODEL = [
    f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{MODEL}")
tokenizer = AutoTokenizer.from_pretrained("{MODEL}")
```""",
    f"""```sh
leafe serve --model {MODEL}
vllm serve {MODEL}
```""",
]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _files(paths: Sequence[Path]) -> str:
    """Names without their folders, and how often each stands there."""
    counts = Counter(path.resolve().name for path in paths)
    return ", ".join(f"`{name}`" + (f" ({n} of that name)" if n > 1 else "") for name, n in counts.items())


def _versions(backend: str) -> list[str]:
    found = []
    for package in ("leafe-graph", "torch", "transformers", "peft", *(["unsloth"] if backend == "unsloth" else [])):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # run from a checkout
            continue
    return found


def _license(spec: str) -> str | None:
    """The base's, where it is known without asking the hub."""
    from huggingface_hub import ModelCard

    if base_name(spec) == (HUB, True):
        return "apache-2.0"
    folder = ModelSpec.parse(spec).folder
    if folder is None or not (readme := folder / "README.md").is_file():
        return None
    try:
        found = ModelCard.load(readme, ignore_metadata_errors=True).data.license
    except (ValueError, yaml.YAMLError):  # whatever else that file is
        return None
    return found if isinstance(found, str) else None
