"""An agent that is killed again and again comes to what it comes to undisturbed: messages, files and database."""

import random
import signal
import sys
import time
from pathlib import Path

import killed_agent
from lives import Lives, kill


def test_killed_at_random_moments_it_ends_as_undisturbed(tmp_path: Path) -> None:
    """Inside tools that are not safe to be called twice, judges, rewinds: twenty times, each time in a new process."""
    killed_agent.play(tmp_path / "calm", 0)
    calm = killed_agent.seen(tmp_path / "calm")
    assert len(calm[2]) == killed_agent.STEPS and "better" in calm[1]
    command = [sys.executable, str(Path(killed_agent.__file__)), str(tmp_path / "killed")]
    draw, kills = random.Random(0), 0
    with Lives(command) as lives:
        while True:
            life = lives.start("0.02" if kills < 20 else "0")
            if kills < 20:
                time.sleep(draw.uniform(0.02, 0.2))
                kill(life)
                kills += 1
            ended = lives.end()
            assert ended in (0, -signal.SIGKILL)
            if ended == 0 and kills >= 20:
                break
    assert killed_agent.seen(tmp_path / "killed") == calm
