"""The state machine's nodes: reset, act, step, reflect, rewind.

Each takes the state and gives an update; what is live comes from the `Context`. Routing is in graph.py. A model or an
environment that fails ends the branch with a typed reason, never the run.
"""

import time
from collections.abc import Generator
from dataclasses import replace
from typing import cast

from langchain_core.messages import AIMessage
from langgraph.runtime import get_runtime

from ..budget import add_costs
from ..clock import now, since
from ..env.answers import step_of
from ..env.protocol import TextEnv, anchor, snapshot
from ..env.questions import asked_in_vain
from ..env.tasks import as_task
from ..errors import BudgetExceeded, ConfigError, ReplayDivergence
from ..seeds import call_seed
from ..text import utf8
from ..types import EndReason, Reflection
from .account import Account
from .context import Context
from .model_calls import RAISED, Call, CallFailed, Update, spend
from .records import branch_record, divergence_record, model_message, place
from .reflection import parse_reflection
from .state import AgentInput, State, child, fresh_start, rewound, root
from .subgraph import refuse_time_travel


def reset(state: AgentInput, ctx: Context) -> Update:
    """Start the task and look around; whatever an earlier run left on this thread is gone."""
    refuse_time_travel()
    task = as_task(state.get("task"))
    branch = ctx.branch or root()
    env: TextEnv | None = None
    try:
        env, observation, _ = ctx.envs.reset(task)
        env_state = snapshot(env)
    except BaseException as error:
        if env is not None:
            ctx.envs.discard(env)
        return fresh_start(task, "", None, branch) | _env_failed(error, ctx)
    update = fresh_start(task, observation, env_state, branch)
    ctx.envs.put_back(env, place(cast(State, update | {"turns": []})))
    return update


def act(state: State, ctx: Context) -> Generator["Call", AIMessage, Update]:
    """Ask the policy for the next action. The experience goes into this prompt and nowhere else."""
    account, play, started = Account(state, ctx), ctx.play, now()
    if account.ledger.refuses(env_steps=1):  # the answer could not be used
        return {"end": "budget"}
    branch, turns = state["branch"], state["turns"]
    shown = play.experience_turns is None or len(turns) - branch["decision_point"] < play.experience_turns
    call = Call(
        model=ctx.policy,
        messages=ctx.prompts.act_messages(
            state["task"],
            turns,
            state["observation"],
            experience=state["experience"] if shown else None,
            history=play.history,
        ),
        max_tokens=play.max_tokens,
        seed=_seed(ctx, state, "act"),
    )
    try:
        answer = yield from spend(call, account, ctx)
    except BudgetExceeded:
        return {"end": "budget"}
    except CallFailed as failed:
        return {"end": "model_error", "error": utf8(str(failed)), "cost": account.cost}
    said = model_message(answer)
    said["time"] = since(started)
    if shown and state["experience"] is not None:
        said.pop("prompt_token_ids", None)  # they spell the experience, which is no part of the history
    return {"message": said, "decision_checkpoint": _checkpoint_id(), "cost": account.cost}


def step(state: State, ctx: Context) -> Update:
    """Put the action to the environment and write the turn down."""
    turns, message = state["turns"], state["message"]
    if message is None:
        raise ConfigError("step was reached without an action; it must follow act")
    account, started, began, here = Account(state, ctx), time.perf_counter(), now(), place(state)
    accepted: list[ReplayDivergence] = []

    def ended(update: Update) -> Update:
        account.record(seconds=time.perf_counter() - started)
        if accepted and not state.get("divergence"):
            update = {"divergence": divergence_record(accepted[0])} | update
        return {"message": None, "decision_checkpoint": None, "cost": account.cost} | update

    try:
        action = utf8(ctx.prompts.action(message))
    except RAISED:
        raise
    except Exception as error:
        ctx.traceback.show(error, "prompts' action()")
        return ended(_failed("model_error", error))
    env: TextEnv | None = None
    try:
        env = ctx.envs.lease(
            here,
            before_replay=lambda steps: account.charge(replayed_steps=steps),
            diverged=accepted.append if ctx.play.on_divergence == "accept" else None,
        )
        account.charge(env_steps=1)
        stands_at = anchor(env) if ctx.play.anchors else None
        answer = step_of(env.step(action))
        env_state = snapshot(env)
        turn = answer.turn(
            state["observation"],
            action,
            message,
            checkpoint_id=state["decision_checkpoint"],
            env_state=state["env_state"],
        )
        turn["time"] = since(began)
        if stands_at is not None:
            turn["anchor"] = stands_at
    except BudgetExceeded:
        if env is not None:
            ctx.envs.put_back(env, here)
        return ended({"end": "budget"})
    except ReplayDivergence as error:
        if ctx.play.on_divergence == "raise":
            raise
        return ended(_failed("replay_divergence", error) | {"divergence": divergence_record(error)})
    except BaseException as error:
        if env is not None:
            ctx.envs.discard(env)
        return ended(_env_failed(error, ctx))
    end: EndReason | None = None
    if answer.success:
        end = "success"
    elif answer.terminated:
        end = "failure"
    elif answer.truncated:
        end = "truncated"
    elif len(turns) + 1 >= ctx.play.horizon:
        end = "max_turns"
    there = replace(here, turns=[*turns, turn], observation=answer.observation, env_state=env_state)
    ctx.envs.put_back(env, None if end else there)
    return ended({"turns": [turn], "observation": answer.observation, "env_state": env_state, "end": end})


def reflect(state: State, ctx: Context) -> Generator["Call", AIMessage, Update]:
    """Ask which decision went wrong and what to do instead. Nothing understood: recorded, and no rewind."""
    account, turns, started = Account(state, ctx), state["turns"], now()
    call = Call(
        model=ctx.reflector,
        messages=ctx.prompts.reflect_messages(state["task"], turns, state["observation"], state["end"]),
        max_tokens=ctx.play.reflect_max_tokens,
        seed=_seed(ctx, state, "reflect"),
        reflections=1,
    )
    try:
        answer = yield from spend(call, account, ctx)
    except BudgetExceeded as refused:  # without reflections an episode can still go on
        goes_on = state["end"] or refused.limit == "reflections"
        return {"reflection": None} if goes_on else {"reflection": None, "end": "budget"}
    except CallFailed as failed:
        spent = {"reflection": None, "cost": account.cost, "error": utf8(str(failed))}
        return spent if state["end"] else spent | {"end": "model_error"}
    said = model_message(answer)
    verdict, decision_point, experience = parse_reflection(raw := said["content"], len(turns))
    reflection = Reflection(
        turn=len(turns),
        verdict=verdict,
        decision_point=decision_point,
        experience=experience,
        raw=raw,
        time=since(started),
    )
    if "usage" in said:
        reflection["usage"] = said["usage"]
    update: Update = {
        "reflection": reflection,
        "reflections": [reflection],
        "cost": account.cost,
    }
    if ctx.fork and verdict == "rewind" and not state["end"]:
        update["end"] = "rewound"
    return update


def rewind(state: State, ctx: Context) -> Update:
    """Go back to the decision point in place; the abandoned path is kept in ``abandoned``."""
    reflection = state["reflection"]
    if reflection is None or reflection["verdict"] != "rewind" or reflection["decision_point"] is None:
        raise ConfigError(f"rewind was reached without a reflection that asks for it; the reflection is {reflection!r}")
    old, tau, earlier = state["branch"], reflection["decision_point"], state["abandoned"]
    new = child(str(int(old["id"]) + 1), old, tau)
    before = add_costs(*(branch["cost"] for branch in earlier))
    left_behind = branch_record(state, thread_id=None) | {
        "reflections": state["reflections"][sum(len(branch["reflections"]) for branch in earlier) :],
        "cost": {field: spent - before[field] for field, spent in state["cost"].items()},  # type: ignore[literal-required]
    }
    ctx.envs.release(place(state))
    return rewound(state, tau, reflection["experience"], new) | {"abandoned": [left_behind]}


# ---- what the nodes share


def _failed(end: EndReason, error: Exception) -> Update:
    return {"end": end, "error": utf8(f"{type(error).__name__}: {error}")}


def _env_failed(error: BaseException, ctx: Context) -> Update:
    """How an environment that raised ends its branch; what is no failure of its own is raised."""
    if (vain := asked_in_vain(error)) is not None:
        raise vain from error
    if not isinstance(error, Exception) or isinstance(error, RAISED):
        raise error
    ctx.traceback.show(error, "environment")
    return _failed("env_error", error)


def _seed(ctx: Context, state: State, purpose: str) -> int | None:
    if ctx.play.seed is None:
        return None
    return call_seed(ctx.play.seed, state["task"]["id"], state["branch"]["id"], len(state["turns"]), purpose)


def _checkpoint_id() -> str | None:
    info = get_runtime().execution_info
    return info.checkpoint_id if info is not None and info.thread_id is not None else None
