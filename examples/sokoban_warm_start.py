"""Make the warm start: a small LoRA adapter with which the embedded model can play Sokoban, reflect, and follow advice.

SmolLM2-135M plays no Sokoban untrained, so there would be nothing to learn from. This script has the solver play noisy
episodes on training levels and writes three kinds of demonstrations:

- what to do in a state (the policy's prompt without an experience),
- a reflection on a failed episode (which step, why, what not to do there),
- what to do in a state when an experience warns of a move.

Then it trains the adapter on them. Its levels have other seeds than an exploration of the first levels sees, and the
held-out splits share no room with it.

    python examples/sokoban_warm_start.py --out runs/warm-start
"""

import argparse
import json
import random
from pathlib import Path

from leafe_graph.dataset.demonstrate import Episode, demonstration
from leafe_graph.envs import sokoban
from leafe_graph.envs.sokoban.warm_start import PROMPTS
from leafe_graph.types import EndReason, Example, Task, Turn

INSTRUCTION = "Sokoban."  # short: on a CPU every prompt token counts
FIRST_SEED = 500_000_000


def main() -> None:
    """Write the rows, then train unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the rows and the adapter")
    parser.add_argument("--levels", type=int, default=400)
    parser.add_argument("--act-rows", type=int, default=260)
    parser.add_argument("--reflect-rows", type=int, default=220)
    parser.add_argument("--follow-rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adapter", help="go on with this adapter instead of a new one")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--rows-only", action="store_true", help="do not train")
    arguments = parser.parse_args()
    rows = demonstrations(
        arguments.levels, arguments.act_rows, arguments.reflect_rows, arguments.follow_rows, seed=arguments.seed
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = arguments.out / "demonstrations.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{len(rows)} rows in {data}")
    if not arguments.rows_only:
        from leafe_graph.finetune import TrainConfig
        from leafe_graph.finetune.train import train

        config = TrainConfig(
            objective="demonstrations",
            model="local:smollm2-135m",
            adapter=arguments.adapter,
            data=[data],
            out=arguments.out,
            lora_r=8,
            lora_alpha=16,
            layers_to_transform=[*range(10, 30)],  # the upper two thirds: a third less work in the backward pass
            learning_rate=arguments.learning_rate,
            batch_size=16,
            micro_batch_size=16,
            adapter_dtype="bfloat16",
            backend="peft",
        )
        print(train(config).summary())


def demonstrations(levels: int, act: int, reflect: int, follow: int, *, seed: int) -> list[Example]:
    """Shuffled rows of the three kinds."""
    rng = random.Random(seed)
    tasks = sokoban.tasks("train", levels, start=FIRST_SEED, min_moves=2, max_moves=8, instruction=INSTRUCTION)
    acts: list[Example] = []
    follows: list[Example] = []
    reflections: list[Example] = []
    while len(acts) < act or len(follows) < follow or len(reflections) < reflect:
        task = rng.choice(tasks)
        turns, best, observation, end = episode(task, rng, noise=rng.choice([0.2, 0.4, 0.6]))
        for turn, good in zip(turns, best, strict=True):
            acts.append(demonstration(task, PROMPTS.act_messages(task, [], turn["observation"]), rng.choice(good)))
            if turn["action"] not in good:
                prompt = PROMPTS.act_messages(task, [], turn["observation"], experience=advice(turn))
                follows.append(demonstration(task, prompt, rng.choice(good)))
        if end == "failure" or (
            end == "max_turns" and rng.random() < 0.1
        ):  # as the policy fails: mostly by a stuck box
            mistake = first_mistake(turns, best)
            answer = json.dumps({"experience": advice(turns[mistake]), "step": mistake})
            reflections.append(demonstration(task, PROMPTS.reflect_messages(task, turns, observation, end), answer))
    rows = rng.sample(acts, act) + rng.sample(follows, follow) + rng.sample(reflections, reflect)
    rng.shuffle(rows)
    return rows


def episode(
    task: Task, rng: random.Random, *, noise: float, max_turns: int = 12
) -> tuple[list[Turn], list[list[str]], str, EndReason]:
    """A noisy episode: its turns, the best moves at each, what is seen at its end, and how it ended."""
    env = sokoban.SokobanEnv(end_on_deadlock=True, view="words")
    played = Episode(env, task)
    best: list[list[str]] = []
    while len(played.turns) < max_turns and not played.ended:
        good = sokoban.optimal_actions(env.state)
        if not good:  # lost, though no box is seen to be stuck
            break
        best.append(good)
        played.play([rng.choice(sokoban.ACTIONS if rng.random() < noise else good)])
    end: EndReason = "max_turns" if not played.ended else "success" if played.success else "failure"
    return played.turns, best, played.observation, end


def first_mistake(turns: list[Turn], best: list[list[str]]) -> int:
    """The step to blame: the one that got a box stuck, else the first without effect, else the first that led away."""
    bad = [t for t, turn in enumerate(turns) if turn["action"] not in best[t]]
    stuck = [t for t in bad if turns[t]["feedback"].endswith("deadlock")]
    useless = [t for t in bad if turns[t]["valid"] is False]
    return (stuck or useless or bad)[0]


def advice(turn: Turn) -> str:
    """An experience: what happened, and what not to do again."""
    return f"{turn['action']} -> {turn['feedback']}. Do not go {turn['action']} here."


if __name__ == "__main__":
    main()
