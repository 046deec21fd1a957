"""CodeContests: programming problems with hidden tests.

It knows env, types and errors, and the sandbox, where programs run.
"""

from .env import GUIDE, HORIZON, INSTRUCTION, CodeContestsEnv, expert, program_of, split_of, tasks

__all__ = ["GUIDE", "HORIZON", "INSTRUCTION", "CodeContestsEnv", "expert", "program_of", "split_of", "tasks"]
