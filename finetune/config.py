"""What a training run can be told. No heavy import, so that ``--help`` answers at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leafe_graph.files import UserPath, path_of
from leafe_graph.models.hub import Repo
from leafe_graph.parsing import load_yaml, read_text
from leafe_graph.settings import Output, Pace, Place

from .objectives import OBJECTIVES


class Retold:
    """Mark of a setting that the model card tells in other words, or not at all."""


class Unlearned:
    """Mark of a setting that no step of the training depends on: a resumed run may have another."""


class TrainConfig(BaseModel):
    """Train a LoRA adapter, or the whole model, on exported rows; loss on the action's tokens only."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    config: Annotated[UserPath | None, Retold] = None
    """YAML (or JSON) file of these fields; what is given beside it wins. `out`/train_config.json is one."""

    model: Annotated[str, Place]
    """The base model: "local:smollm2-135m" (embedded), "local:PATH", a Hugging Face folder, or a hub name."""

    data: Annotated[list[UserPath], Place] = Field(min_length=1)
    """Example rows: JSONL or Parquet files, folders that hold them, or run folders."""

    out: Annotated[UserPath, Place]
    """Folder for the adapter or the model, README.md (its model card), merged/, model-TYPE.gguf, checkpoints/,
    metrics.jsonl, loss.png and train_config.json."""

    nodes: list[str] | None = Field(default=None, min_length=1)
    """Train on the decisions of these agents alone, where rows tell several apart: paths of their nodes, or patterns of
    such (``researcher*``)."""

    tune: Annotated[Literal["lora", "full"], Retold] = "lora"
    """What trains: a LoRA adapter on the base, or all of the base's weights. "full" leaves an ordinary model folder in
    `out`; the settings of LoRA do not count then, and `merge` and `load_in_4bit` are refused."""

    objective: Literal[*OBJECTIVES] = Field(  # type: ignore[valid-type]
        default="leafe", description=OBJECTIVES.told()
    )

    beta: float = Field(default=1.0, ge=0)
    """Weight of the rehearsal term, whatever the row counts: of leafe, both distillations and dpo. The paper's value is
    not known; 1 is the plain sum."""

    teacher_top_k: int = Field(default=100, ge=1)
    """self_distillation and on_policy_distillation: so many of the teacher's likeliest tokens, and all others as one.
    100 is SDPO's value."""

    gate: float | None = Field(default=None, gt=0)
    """on_policy_distillation: a token counts the more, the likelier the teacher holds it than the student does: times
    sigmoid(gate * (log teacher - log student)). 5 is SDAR's value; None: all count alike."""

    dpo_beta: float = Field(default=0.1, gt=0)
    """dpo: how much the reference, the model before the training, holds. 0.1 is TRL's default, and ETO's and IPR's."""

    dpo_nll: float = Field(default=0.05, ge=0)
    """dpo: weight of -log pi of the better answer, without which both answers may become less likely. 0.05 pulls at it
    as much as the loss itself does at its start with dpo_beta = 0.1."""

    clip_low: float = Field(default=0.2, ge=0, le=1)
    """grpo: ratios below 1 minus this are clipped. 0.2 is PPO's value."""

    clip_high: float = Field(default=0.28, ge=0)
    """grpo: ratios above 1 plus this are clipped. 0.28 is DAPO's clip-higher; 0.2 is PPO's value."""

    kl_coef: float = Field(default=0.0, ge=0)
    """grpo: weight of the KL divergence from the model before the training. 0 is DAPO's and TRL's; costs a pass."""

    normalise_by: Literal["tokens", "rows"] | Annotated[int, Field(ge=1)] = "tokens"
    """grpo: what the sum of tokens' losses is divided by: "tokens", all of the data's (DAPO); "rows", first each row's
    own (GRPO); or a number of tokens, such as the most that an action may have, times that of rows (Dr. GRPO)."""

    adapter: Annotated[UserPath | None, Retold] = None
    """Go on training this LoRA adapter of the same base model; its own rank, alpha and targets are kept. With
    tune="full" it is merged into the base first."""

    optimizer: Annotated[UserPath | None, Place, Retold] = None
    """`out` of an earlier training of the same weights, whose optimiser goes on where its last step left it: AdamW's
    moments are taken over. For many short trainings in a row, with lr_schedule="constant" and warmup_ratio=0."""

    lora_r: Annotated[int, Retold] = Field(default=16, ge=1)
    """LoRA rank. 16 is Unsloth's default."""

    lora_alpha: Annotated[float, Retold] = Field(default=32, gt=0)
    """LoRA scale, alpha/r. 32 at any rank follows Schulman et al., "LoRA Without Regret" (2025)."""

    lora_dropout: Annotated[float, Retold] = Field(default=0.0, ge=0, lt=1)
    """Dropout before the LoRA matrices. 0 is PEFT's and Unsloth's default."""

    target_modules: Annotated[str | list[str], Retold] = "all-linear"
    """Which layers get LoRA. All linear ones: Dettmers et al., QLoRA (2023)."""

    layers_to_transform: Annotated[list[int] | None, Retold] = None
    """0-based transformer blocks that get LoRA; None: all. With only upper blocks, backward stops below them."""

    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate of AdamW. 2e-4 is QLoRA's value for models up to 13B, and Unsloth's default. tune="full" wants
    about a tenth of LoRA's rate (Schulman et al., 2025): 1e-5 and less for large models."""

    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Course after the warm-up; linear and cosine end at 0. Linear is transformers' default."""

    warmup_ratio: float = Field(default=0.03, ge=0, le=1)
    """Share of all steps over which the learning rate rises from 0. 0.03 is QLoRA's value."""

    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay. 0 is transformers' default."""

    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm. 1 is transformers' default."""

    epochs: float = Field(default=1.0, gt=0)
    """Passes over the rows."""

    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; overrides `epochs`."""

    batch_size: int = Field(default=32, ge=1)
    """Rows per optimiser step, of both kinds together."""

    micro_batch_size: Annotated[int, Pace] = Field(default=8, ge=1)
    """Chains of rows (see finetune/batches.py) per forward pass, those that run the same tokens counted once: memory
    and speed only, the result does not depend on it. A chain has at most `batch_size` rows, whose logits are held
    together."""

    max_length: int = Field(default=2048, ge=2)
    """Longest row in tokens, completion included; a longer row is an error, never cut. 2048 is Unsloth's default."""

    use_token_ids: bool = True
    """Train on the token ids that were sampled, where rows carry them and they say what the row says in this model's
    tokenizer. Off: tokenise the text anew."""

    eval_data: Annotated[list[UserPath] | None, Place] = None
    """Held-out rows for the same objective, of tasks that `data` has none of; the weights with the lowest held-out loss
    are kept."""

    eval_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the tasks in `data` whose rows are held out in the same way. Whole tasks, never single rows: what a task
    teaches stands in many of its rows. A task that is held out stays so when rows of more tasks come."""

    eval_steps: int = Field(default=50, ge=1)
    """Held-out loss is computed before training, every so many steps, and at the end."""

    patience: int | None = Field(default=None, ge=1)
    """Stop after so many evaluations in a row without a new lowest held-out loss; None: never early."""

    save_steps: Annotated[int, Pace, Retold] = Field(default=50, ge=1)
    """A checkpoint every so many steps, and one at the end."""

    resume: Annotated[bool, Unlearned, Retold] = True
    """Go on from the last checkpoint in `out`. Off: checkpoints in `out` are deleted first."""

    merge: Annotated[bool, Output] = False
    """Also save out/merged: base and adapter in one model that plain transformers loads."""

    merged_dtype: Annotated[Literal["float32", "bfloat16", "float16"], Output] = "bfloat16"
    """Number format of the merged model, and of what a GGUF file is made of. It is built in memory: 2 bytes a parameter
    in the 16-bit formats, 4 in float32."""

    gguf: Annotated[Literal["f32", "f16", "bf16", "q8_0"] | None, Output] = None
    """Also save out/model-TYPE.gguf, base and adapter in one file for llama.cpp and Ollama, with 32, 16 or 8 bits a
    weight. llama.cpp's converter must be installed, see finetune/gguf.py; its `llama-quantize` makes smaller ones."""

    push_to_hub: Annotated[Repo | None, Output] = None
    """Upload what is saved to this repository, "user/name", of the Hugging Face hub. It is made, and is private, unless
    it is there."""

    adapter_dtype: Annotated[Literal["float32", "bfloat16", "float16"], Unlearned] = "float32"
    """Number format of the saved adapter; the half-size ones lose a little precision. A model that was trained whole
    is saved as it was trained, in `dtype`."""

    backend: Annotated[Literal["auto", "peft", "unsloth"], Pace, Retold] = "auto"
    """What builds the model. "auto": Unsloth where it is installed and runs, else PEFT (plain transformers where no
    adapter is trained). Rows and loss are the same."""

    load_in_4bit: bool = False
    """Load the base quantised to 4 bits (QLoRA); needs a GPU and bitsandbytes."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the base's weights. "auto": bfloat16 on a GPU, float32 on a CPU. LoRA itself is float32, and so
    is "auto" with tune="full": small steps would be rounded away in bfloat16."""

    gradient_checkpointing: Annotated[bool, Pace] = False
    """Recompute activations in the backward pass: less memory, about a third slower."""

    report_to: Annotated[list[Literal["tensorboard", "wandb", "mlflow"]], Output] = Field(default_factory=list)
    """Trackers that get what metrics.jsonl gets, through accelerate's; `out`/tracking holds TensorBoard's files."""

    project: Annotated[str, Output] = "leafe-graph"
    """What the trackers call the project: W&B's project, MLflow's experiment."""

    seed: int = 0
    """Decides the LoRA matrices' start, the order of rows and dropout."""

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, given: Any) -> Any:
        """What the file says, but for what is said beside it."""
        if not isinstance(given, dict) or given.get("config") is None:
            return given
        beside, file = dict(given), given["config"]
        del beside["config"]
        said, _ = load_yaml(read_text(path_of(file)), str(file))
        if not isinstance(said, dict):
            held = "is empty" if said is None else f"holds {type(said).__name__}"
            raise ValueError(f"{file} {held}, expected fields: model, data, out, ...")
        return said | beside

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if self.patience is not None and not (self.eval_data or self.eval_share):
            raise ValueError("patience needs eval_data or eval_share: there is no held-out loss to watch without one")
        if self.eval_data and self.eval_share:
            raise ValueError("eval_data and eval_share both say what is held out: give one of them")
        if self.optimizer is not None and self.optimizer.resolve() == self.out.resolve():
            raise ValueError(
                f"optimizer is out itself, {self.out}, whose checkpoints are this training's: choose another out"
            )
        if self.tune == "full" and self.merge:
            raise ValueError(
                'merge with tune="full": there is no adapter to merge, out is the whole model: leave it out'
            )
        if self.tune == "full" and self.load_in_4bit:
            raise ValueError('load_in_4bit with tune="full": 4-bit weights do not train: leave it out, or train LoRA')
        return self


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Where everything lies, and how it went."""

    adapter: Path | None
    """Folder with adapter_model.safetensors and adapter_config.json; None where the whole model was trained."""
    model: Path | None = None
    """Folder of the model, where the whole was trained: what `local:` and transformers load."""
    merged: Path | None
    """Folder of the merged model, if asked for."""
    gguf: Path | None = None
    """GGUF file of the merged model, if asked for."""
    backend: str
    """"peft" or "unsloth", or "transformers" where neither is needed."""
    steps: int
    """Optimiser steps behind it, those before a resume included."""
    resumed_from: int
    """Step at which this call took over; 0 for a fresh start."""
    rows: dict[str, int]
    """Training rows by kind."""
    loss: float | None
    """Mean training loss over the last epoch's worth of steps."""
    eval_loss: float | None
    """Held-out loss of the weights that are kept; None without `eval_data`."""
    kept_step: int
    """Step whose weights were saved: the last, or the one with the lowest held-out loss."""
    tokens: int
    """Tokens (prompt and completion) run, epochs counted: a history that rows share once, equal sequences each time."""
    target_tokens: int = 0
    """Tokens of completions that were learned, epochs counted."""
    seconds: float
    """Time spent in training steps."""
    processes: int = 1
    """How many shared the work."""
    token_ids: dict[str, int] = field(default_factory=dict)
    """What became of the token ids that rows carry: "recorded", "differ", "prompt_from_text" and "from_text" count
    training rows, see `leafe_graph.finetune.tokens.token_id_counts`; empty where no row carries any."""
    warnings: list[str] = field(default_factory=list)
    """What was worth a warning, e.g. a tiny counterfactual set."""

    def summary(self) -> dict[str, Any]:
        """A flat JSON record."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in self.__dict__.items()}
