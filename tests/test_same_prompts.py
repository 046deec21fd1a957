"""Rewound in place or forked by the explorer, a branch sees the same prompts; and they begin like its parent's."""

import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver
from worlds import TOLD, is_reflection

from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.exploration.explore import explore
from leafe_graph.models.local.kv import common
from leafe_graph.prompts import Prompts
from leafe_graph.settings import Limits
from leafe_graph.testing import ScriptedModel
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.types import Task

TURNS = 6
TASK: Task = {"id": "diary", "instruction": "S"}
FORMS = ['{{"step": {step}, "experience": "{lesson}"}}', "Step {step} was the mistake: {lesson}"]


class Diary:
    """An endless world in which every observation depends on all actions before it, in words the tiny model knows."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        self.said = []
        return "P", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.said.append(action)
        digits = " ".join(str(zlib.crc32(json.dumps(self.said).encode())))
        return f"{len(self.said)} X {digits}", 0.0, False, False, {}

    def close(self) -> None:
        """Nothing is held."""


class SnapshotDiary(Diary):
    """The same with snapshots."""

    def snapshot(self) -> bytes:
        return json.dumps(self.said).encode()

    def restore(self, state: bytes) -> None:
        self.said = json.loads(state)


class Door:
    """Answers like a model whose reflections blame the given steps, and writes down what came with each call."""

    def __init__(self, *steps: int) -> None:
        self.reflections = iter(
            FORMS[n % 2].format(step=step, lesson=f"{'a b c'[2 * n :] or 'd'} {{mind}} 漢字 \\u00e9")
            for n, step in enumerate(steps)
        )
        self.calls: list[tuple[int | None, list[tuple[str, str]]]] = []

    def __call__(self, messages: list[BaseMessage], seed: int | None) -> str:
        self.calls.append((seed, [(message.type, message.text) for message in messages]))
        if is_reflection(messages):
            return next(self.reflections)
        return random.Random(repr(self.calls[-1])).choice(["up", "down", "left o", "Action: right", " q \n"])

    @property
    def model(self) -> ScriptedModel:
        """The model that answers like this."""
        return ScriptedModel(reply=self)

    @property
    def acted(self) -> list[list[tuple[str, str]]]:
        """The prompts that asked for an action."""
        return [prompt for _, prompt in self.calls if "Which step was the mistake" not in prompt[-1][1]]


def grow(model: Any, world: Any, out: Path, *, rewinds: int, **settings: Any) -> RunFolder:
    """A tree that is one chain of so many rewinds, as the agent makes it in place."""
    settings = {"limits": Limits(max_branches=rewinds + 1, max_depth=rewinds), "max_turns": TURNS, **settings}
    return explore(model, world, [TASK], out=out, checkpointer=InMemorySaver(), **settings)


REWINDS_OF_REWINDS = (3, 3, 5, 1, 4, 0)
"""The same again, inside the branch, before it on its parent's path, and back to the start."""
CASES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    *((steps, {"history": history}) for steps in [(0,), (3,), (5,), REWINDS_OF_REWINDS] for history in (None, 2)),
    (REWINDS_OF_REWINDS, {"history": 0}),
    (REWINDS_OF_REWINDS, {"experience_turns": 1}),
    ((1, 2, 0), {"reflect_every": 2}),
]


@pytest.mark.parametrize("world", [Diary, SnapshotDiary])
@pytest.mark.parametrize(("steps", "settings"), CASES, ids=str)
def test_prompts_after_a_rewind_and_after_a_fork_are_the_same(
    steps: tuple[int, ...], settings: dict[str, Any], world: Any, tmp_path: Path
) -> None:
    """All prompts and seeds that the model ever gets are equal, byte for byte and in the same order."""
    in_place, forked = Door(*steps), Door(*steps)
    agent = create_leafe_agent(in_place.model, env=world, max_turns=TURNS, max_rewinds=len(steps), seed=0, **settings)
    final = agent.invoke({"task": TASK})
    run = grow(forked.model, world, tmp_path, rewinds=len(steps), **settings)
    assert in_place.calls == forked.calls
    assert [branch["decision_point"] for branch in run.branches] == [0, *steps]
    assert len(in_place.acted) == sum(len(branch["turns"]) for branch in run.branches)
    told = [TOLD in prompt[-1][1] for prompt in in_place.acted]
    untold = len(run.branches[0]["turns"])
    assert sum(told) == (len(steps) if "experience_turns" in settings else len(told) - untold)
    replayed = sum(branch["cost"]["replayed_steps"] for branch in run.branches)
    assert replayed == final["cost"]["replayed_steps"] == (sum(steps) if world is Diary else 0)


@pytest.mark.parametrize("world", [Diary, SnapshotDiary])
def test_token_ids_after_a_rewind_and_after_a_fork_are_the_same(
    world: Any, tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same at the door of a real model: the token ids and the settings of every draw."""
    pytest.importorskip("torch")
    from leafe_graph.models.local.chat_model import LocalChatModel
    from leafe_graph.models.local.engine import Engine

    seen: list[tuple[Any, Any]] = []
    submit = Engine.submit

    def written_down(self: Engine, prompt: Any, sampling: Any) -> Any:
        seen.append((prompt, sampling))
        return submit(self, prompt, sampling)

    monkeypatch.setattr(Engine, "submit", written_down)
    settings: dict[str, Any] = {"max_tokens": 2, "prompts": Prompts(experience="O {experience}")}
    steps = (3, 5, 1)
    with LocalChatModel(path=str(tiny_model_path)) as model:
        critic = Door(*steps).model
        create_leafe_agent(
            model, env=world, reflector=critic, max_turns=TURNS, max_rewinds=len(steps), seed=0, **settings
        ).invoke({"task": TASK})
        in_place, seen = seen, []
        grow(model, world, tmp_path, rewinds=len(steps), reflector=Door(*steps).model, **settings)
    assert in_place == seen
    assert len(seen) == TURNS * (1 + len(steps)) - sum(steps)
    assert len({sampling.seed for _, sampling in seen}) == len(seen)


# ---- what a server's prefix cache can use


def ids(tokenizer: Any, prompt: list[tuple[str, str]]) -> list[int]:
    """A prompt as the token ids of a chat."""
    roles = {"system": "system", "human": "user", "ai": "assistant"}
    chat = [{"role": roles[kind], "content": text} for kind, text in prompt]
    return list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))


@pytest.fixture(params=["tiny", pytest.param("embedded", marks=pytest.mark.embedded)])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """A template of one token a word, and ChatML with byte pairs."""
    transformers = pytest.importorskip("transformers")
    if request.param == "tiny":
        return transformers.AutoTokenizer.from_pretrained(request.getfixturevalue("tiny_model_path"))
    from leafe_graph.models.embedded import embedded_model_path

    return transformers.AutoTokenizer.from_pretrained(embedded_model_path())


@pytest.mark.parametrize("history", [None, 2])
def test_prompts_begin_like_their_parents_and_the_turn_before(
    history: int | None, tokenizer: Any, tmp_path: Path
) -> None:
    """A branch's prompt is what its parent was shown there, then the experience; the next turn's goes on from it.

    Neither text nor token ids change before that. With a window of turns, the second part cannot hold.
    """
    steps = (4, 2, 5, 0)
    door = Door(*steps)
    run = grow(door.model, Diary, tmp_path, rewinds=len(steps), history=history)
    prompts = iter(door.acted)
    one, other = ids(tokenizer, [("human", "P")]), ids(tokenizer, [("human", "X")])
    closing = common(tuple(one[::-1]), tuple(other[::-1]))  # tokens of the template behind the last observation
    known: dict[int, list[tuple[str, str]]] = {}  # what the path's decision points show, without experience
    for branch in run.branches:
        start, experience = branch["decision_point"], branch["experience"]
        before = dict(known)
        for t in range(start, start + len(branch["turns"])):
            prompt = next(prompts)
            *history_shown, (kind, last) = prompt
            observation = branch["turns"][t - start]["observation"]
            assert last == observation + (f"\n\n{TOLD}{experience}" if experience else "")
            known[t] = [*history_shown, (kind, observation)]
            shared = ids(tokenizer, known[t])[:-closing]
            assert ids(tokenizer, prompt)[: len(shared)] == shared
            if history is None and t > 0:
                assert prompt[: len(known[t - 1])] == known[t - 1]
                beginning = ids(tokenizer, known[t - 1])
                assert ids(tokenizer, prompt)[: len(beginning)] == beginning
        if branch["parent"] is not None:
            assert known[start] == before[start]
    assert next(prompts, None) is None


def test_local_model_computes_of_a_branch_what_follows_the_shared_prefix(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a branch's first prompt what comes after the observation; of the root's later ones what the turn added."""
    pytest.importorskip("torch")
    from leafe_graph.models.local import engine
    from leafe_graph.models.local.chat_model import LocalChatModel

    monkeypatch.setattr(engine, "_engines", {})
    monkeypatch.setattr(engine, "IDLE_SECONDS", 600.0)  # a worker that ended would have forgotten the prompts
    steps = (5, 4, 3)
    with LocalChatModel(path=str(tiny_model_path), max_tokens=2, logprobs=True, memo_bytes=0) as model:
        calls: list[tuple[int, int]] = [(0, 0)]  # tokens of the prompt, tokens computed so far

        class Meter(BaseCallbackHandler):
            raise_error = True

            def on_llm_end(self, response: Any, **kwargs: Any) -> None:
                usage = response.generations[0][0].message.usage_metadata
                calls.append((usage["input_tokens"], model.stats["prefill_tokens"]))

        metered = model.model_copy(update={"callbacks": [Meter()]})
        run = grow(metered, Diary, tmp_path, rewinds=len(steps), reflector=Door(*steps).model)
    assert len(calls) - 1 == sum(len(branch["turns"]) for branch in run.branches)
    for call in range(2, TURNS):  # the first prompt is shorter than the shortest prefix that is kept
        (before, _), (asked, computed) = calls[call], calls[call + 1]
        assert computed - calls[call][1] == asked - before
    first = TURNS + 1
    for branch in run.branches[1:]:
        told = len(f"{TOLD}{branch['experience']}".split())
        asked, computed = calls[first]
        assert computed - calls[first - 1][1] <= told + 3 < asked / 2  # 3: the template's closing tokens
        first += len(branch["turns"])
