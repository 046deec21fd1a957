"""``--dry-run`` of ``leafe run`` and ``leafe explore``: what would be played, made, needed and paid, without a model.

Counts are upper bounds: every task uses all that it may. Lengths, shares and speeds are the guesses of the file's
``estimate`` section. Sizes come from the model's config.json, or from the table here where it is not at hand. Nothing
here is measured: it is right within a factor of two or so where the guesses are.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rich.table import Table

from ..envs.catalog import ENVS, find
from ..errors import LeafeError
from ..finetune.batches import ALIKE
from ..models.shapes import shape
from ..phases.config import Choosing, ExploreConfig
from ..settings import MAX_TURNS, TASKS
from ..strategies import STRATEGIES
from .config import Estimate, RunConfig

GIB = 2**30
OPTIMIZER_VALUES = 4
"""Of a parameter that trains: weight, gradient and AdamW's two moments. LoRA's are float32."""
FOUR_BIT_BYTES = 0.5625
"""Of a weight in NF4: half a byte, and a float32 scale for 64 weights (Dettmers et al., QLoRA, 2023)."""
ACTIVATION_BYTES = 34
"""Of a token, layer and hidden unit in 16 bits, attention's scores not kept (Korthikanti et al. 2022, section 4)."""
LOCAL_BATCH = 64
"""Sequences that a model in this process decodes at once."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a phase does, at most."""

    phase: str
    tasks: int = 0
    steps: float = 0
    """Of the environment; of the optimiser in a training."""
    calls: float = 0
    prompt: float = 0
    """Prompt tokens; in a training all tokens that are run."""
    completion: float = 0
    """New tokens."""
    rows: tuple[int, int] = (0, 0)
    """Counterfactual and rehearsal rows."""
    seconds: float | None = None
    """None where a speed is not given."""
    price: float | None = None
    """None where no price is given, and of a training."""


def plan(config: RunConfig) -> Iterator[Table | str]:
    """Tables and remarks for the terminal."""
    turns, told = _turns(config.max_turns, config.env)
    work = list(_phases(config, turns))
    yield _work_table(str(config.out), work)
    yield from _price(work)
    yield _memory_table(config, turns)
    kept = {"all": " and those of all rounds before", 0: ""}.get(
        config.keep_rows, f" and those of the last {config.keep_rows} before"
    )
    yield (
        f"Starts from {config.model} with {config.adapter or 'no adapter'}. Each round trains from the "
        f"{config.train_from}, on its own rows{kept}."
    )
    yield (
        "Never stops early."
        if config.patience is None
        else f"Stops after {config.patience} round(s) whose Pass@{config.k} is not higher than the best by more than "
        f"{100 * config.min_gain:g} points."
    )
    e = config.estimate
    yield (
        "Prompt and new are tokens, those of a training all that are run; its steps are the optimiser's. Rows are "
        f"counterfactual + rehearsal. {_assumed(e, config.explore, turns)}; "
        f"{100 * e.success:g}% of the explored tasks succeed, {100 * e.corrected:g}% of those by a revised action; "
        f"{100 * e.cached:g}% of the prompt tokens are cached. The file's estimate section changes that."
    )
    longest = _longest(config, turns)
    if longest > config.train.max_length:
        yield (
            f"Warning: the longest row has about {longest:,} tokens, train.max_length is {config.train.max_length:,}: "
            "rows that are too long are errors. Raise it, or shorten history."
        )
    size = shape(config.model)
    context = (config.serve and config.serve.argument("--max-model-len")) or (size and size.context)
    if context and longest > context:
        yield (
            f"Warning: the longest prompt with its answer has about {longest:,} tokens, the model's context holds "
            f"{context:,}: calls that are too long fail. Shorten history or max_turns."
        )
    env = ENVS.get(config.env)
    if told:
        yield f"Note: {told}."
    if config.method != "leafe":
        yield f"Note: this is the plan of leafe; {config.method} may play and train otherwise."
    if env and (missing := env.missing()):
        yield f"Note: {config.env} needs {', '.join(missing)}, not installed here: {env.install}"


def plan_of_trees(explore: ExploreConfig, e: Estimate, *, agent: str | None = None) -> Iterator[Table | str]:
    """The same of one exploration, of trees that a whole agent grows where one is named."""
    turns, told = (explore.max_turns or MAX_TURNS, "") if agent else _turns(explore.max_turns, explore.env)
    work = [_trees(explore, _played(explore), turns, e)]
    yield _work_table(str(explore.out), work)
    yield from _price(work)
    yield (
        f"{_assumed(e, explore, turns)}; {100 * e.cached:g}% of the prompt tokens are cached. To say otherwise: "
        "--estimate turn_tokens=200,prompt_price=0.25,completion_price=2 (prices of a million tokens)."
    )
    if explore.reflector is not None:
        yield f"Note: the reflections of {explore.reflector} are counted at the policy's price and speed."
    if told:
        yield f"Note: {told}."


def _turns(given: int | None, env: str) -> tuple[int, str]:
    """The longest path, and what to know of it."""
    if given is not None:
        return given, ""
    try:
        return find(env).horizon, ""
    except LeafeError:
        return MAX_TURNS, f"{env} cannot be asked for its horizon here; {MAX_TURNS} turns are assumed"


def _phases(config: RunConfig, turns: int) -> Iterator[Work]:
    e = config.estimate
    mean, context, act = _lengths(e, config.explore, turns)
    explore = _trees(config.explore, n := config.tasks, turns, e)
    tasks = _played(config.eval)
    played = tasks * config.eval.samples * mean
    judge = _paid(
        Work(phase="eval", tasks=tasks, steps=played, calls=played, prompt=played * context, completion=played * act), e
    )
    solved = n * e.success
    cf, reh = round(solved * e.corrected), round(solved * mean)
    # Where prompts show the whole history, the rows of an episode are run at once.
    tokens = solved * _longest(config, mean) if config.explore.history is None else (cf + reh) * (context + act)
    yield replace(judge, phase="0 eval")
    for number in range(1, config.rounds + 1):
        rounds = len(config.kept(number))
        train = Work(phase="train", rows=(rounds * cf, rounds * reh), prompt=rounds * tokens * config.train.epochs)
        steps = math.ceil(config.train.epochs * max(1, sum(train.rows) / config.train.batch_size))
        speed = e.train_tokens_per_second
        train = replace(train, steps=config.train.max_steps or steps, seconds=train.prompt / speed if speed else None)
        for work in (explore, train, judge):
            yield replace(work, phase=f"{number} {work.phase}")


def _played(config: Choosing) -> int:
    """How many tasks; those of a file of levels are counted there."""
    if config.levels is None:
        return config.tasks or TASKS
    from ..phases.resolve import chosen

    return len(chosen(config)[1])


def _trees(plays: ExploreConfig, n: int, turns: int, e: Estimate) -> Work:
    """The trees of n tasks: each within its budget, then all within the run's, which is enough for a share of them."""
    mean, context, act = _lengths(e, plays, turns)
    each, whole = plays.budget, plays.total_budget
    if plays.expert:  # no model is asked
        return _paid(Work(phase="explore", tasks=n, steps=n * mean), e)
    steps = _least(plays.max_branches * mean, each.env_steps, each.model_calls)
    reflections = 0.0
    if STRATEGIES[plays.strategy].reflects:
        reflections = plays.max_branches + (steps / plays.reflect_every if plays.reflect_every else 0)
    reflections = _least(reflections, each.reflections)
    calls = _least(steps + reflections, each.model_calls)
    prompt = _least(steps * context + reflections * (e.instruction_tokens + mean * e.turn_tokens), each.prompt_tokens)
    new = _least(steps * act + reflections * e.reflection_tokens, each.completion_tokens)
    used = {"env_steps": steps, "model_calls": calls, "prompt_tokens": prompt, "completion_tokens": new}
    limits = ((getattr(whole, name), cost) for name, cost in used.items())
    trees = _least(n, *(limit / cost for limit, cost in limits if limit is not None and cost))
    steps, calls, prompt, new = (trees * cost for cost in used.values())
    return _paid(Work(phase="explore", tasks=n, steps=steps, calls=calls, prompt=prompt, completion=new), e)


def _lengths(e: Estimate, plays: ExploreConfig, turns: int) -> tuple[float, float, int]:
    """Turns of a mean path, tokens of its mean prompt, and of an action."""
    mean = min(e.turns or turns, turns)
    shown = min(turns if plays.history is None else plays.history, (mean - 1) / 2)
    return mean, e.instruction_tokens + shown * e.turn_tokens, _action_tokens(e, plays)


def _paid(work: Work, e: Estimate) -> Work:
    """With its time and its price, where speeds and prices are given."""
    if e.prompt_tokens_per_second is not None and e.completion_tokens_per_second is not None:
        read = work.prompt * (1 - e.cached) / e.prompt_tokens_per_second
        work = replace(work, seconds=read + work.completion / e.completion_tokens_per_second)
    if e.prompt_price is not None and e.completion_price is not None:
        cached = e.prompt_price if e.cached_price is None else e.cached_price
        read = work.prompt * ((1 - e.cached) * e.prompt_price + e.cached * cached)
        work = replace(work, price=(read + work.completion * e.completion_price) / 1e6)
    return work


def _assumed(e: Estimate, plays: ExploreConfig, turns: int) -> str:
    return (
        f"Assumed: paths of {e.turns or turns:g} turns of {turns}, an instruction of {e.instruction_tokens} tokens, "
        f"{e.turn_tokens} a turn, {_action_tokens(e, plays)} an action, {e.reflection_tokens} a reflection"
    )


def _least(value: float, *limits: float | None) -> float:
    return min(value, *(limit for limit in limits if limit is not None), math.inf)


def _action_tokens(e: Estimate, plays: ExploreConfig) -> int:
    return min(e.action_tokens, plays.max_tokens or e.action_tokens)


def _longest(config: RunConfig, turns: float) -> int:
    """Tokens of the longest prompt with its answer."""
    e, plays = config.estimate, config.explore
    shown = turns if plays.history is None else min(turns, plays.history)
    return math.ceil(e.instruction_tokens + shown * e.turn_tokens + _action_tokens(e, plays))


def _work_table(out: str, work: list[Work]) -> Table:
    more = len(work) > 1
    shown = Table(title=f"{out}: at most, by the {'file' if more else 'flag'}'s estimates")
    for head in ("round", "tasks", "steps", "calls", "prompt", "new", *["rows"] * more, "time"):
        shown.add_column(head, justify="left" if head == "round" else "right", no_wrap=True)
    for each in work:
        cells = [_short(value) for value in (each.tasks, each.steps, each.calls)]
        cells += [_short(each.prompt), _short(each.completion)]
        cells += [" + ".join(_short(count) for count in each.rows) if any(each.rows) else ""] * more
        shown.add_row(each.phase, *cells, _hours(each.seconds))
    if not more:
        return shown
    shown.add_section()
    times = [each.seconds for each in work]
    total = None if None in times else sum(time or 0 for time in times)
    played = [each for each in work if not any(each.rows)]
    shown.add_row(
        "all",
        "",
        _short(sum(each.steps for each in played)),
        _short(sum(each.calls for each in played)),
        _short(sum(each.prompt for each in work)),
        _short(sum(each.completion for each in work)),
        "",
        _hours(total),
    )
    return shown


def _memory_table(config: RunConfig, turns: int) -> Table:
    longest = _longest(config, turns)
    shown = Table(title="memory, GiB, roughly")
    shown.add_column("what")
    shown.add_column("GiB", justify="right")
    train, size = config.train, shape(config.model)
    if size is None:
        shown.add_row(f"the sizes of {config.model} are not known: no config.json is at hand", "?")
        return shown
    width = 4 if config.estimate.device == "cpu" else 2
    parameters = size.linear + size.embeddings
    at_once = min(config.explore.concurrency, LOCAL_BATCH)
    cache = at_once * longest * size.kv_values() * width
    shown.add_row(f"policy: {parameters / 1e9:.2f}e9 parameters of {width} bytes", _gib(parameters * width))
    shown.add_row(f"  keys and values of {at_once} sequences of {longest:,} tokens", _gib(cache))
    whole = train.tune == "full"
    given = {"float32": 4, "bfloat16": 2}.get(train.dtype, 4 if whole else width)
    base = size.linear * (FOUR_BIT_BYTES if train.load_in_4bit else given) + size.embeddings * given
    learned = size.lora(train.lora_r) * OPTIMIZER_VALUES * 4
    if whole:  # the weights are counted with the base
        learned = parameters * (OPTIMIZER_VALUES - 1) * given
    tokens = train.micro_batch_size * longest
    layer = tokens * size.hidden * ACTIVATION_BYTES * given / 2
    kept = layer + tokens * size.hidden * size.layers * given if train.gradient_checkpointing else layer * size.layers
    shown.add_row(f"training: base model{', in 4 bits' if train.load_in_4bit else ''}", _gib(base))
    lora = f"LoRA of rank {train.lora_r}, {size.lora(train.lora_r) / 1e6:.1f}e6 parameters, AdamW"
    shown.add_row(f"  {'gradients of all parameters, AdamW' if whole else lora}", _gib(learned))
    shown.add_row(f"  activations of {train.micro_batch_size} rows of {longest:,} tokens", _gib(kept))
    # A step's rows of one episode are run together, without history those of one state. Logits and their gradients as
    # they are, and three times in float32.
    actions = train.micro_batch_size * min(train.batch_size, turns)
    if config.explore.history is not None:
        actions = min(train.micro_batch_size * ALIKE, train.batch_size)
    act = _action_tokens(config.estimate, config.explore)
    logits = actions * act * size.vocab * (2 * given + 3 * 4)
    kept += logits
    shown.add_row(f"  logits of {actions} actions of {act} tokens", _gib(logits))
    shown.add_section()
    shown.add_row("policy, in all", _gib(parameters * width + cache))
    shown.add_row("training, in all (not at the same time)", _gib(base + learned + kept))
    return shown


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f}"


def _short(count: float) -> str:
    """Three digits or so: 4,096, 410k, 2.25M; nothing for 0."""
    if count < 10_000:
        return f"{count:,.0f}" if count else ""
    return f"{count / 1e3:.0f}k" if count < 1e6 else f"{count / 1e6:,.{2 if count < 1e8 else 0}f}M"


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.0f} min"


def _price(work: list[Work]) -> Iterator[str]:
    """What it costs, in the currency of the prices; nothing where none are given."""
    paid = [each for each in work if each.price is not None]
    if paid:
        parts = [f"{each.price:,.2f} for {each.phase}" for each in paid] * (len(paid) > 1)
        yield f"Price, at most: {sum(each.price or 0 for each in paid):,.2f}{': ' * bool(parts)}{', '.join(parts)}."
