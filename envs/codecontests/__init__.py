"""Programming problems with hidden tests."""

from .env import GUIDE, HORIZON, INSTRUCTION, CodeContestsEnv, expert, program_of, split_of, tasks

__all__ = ["GUIDE", "HORIZON", "INSTRUCTION", "CodeContestsEnv", "expert", "program_of", "split_of", "tasks"]
