"""Tests of environments that need an installation: skipped with the command to type, or, where CI asks, an error."""

import os

import pytest

from leafe_graph.envs.catalog import ENVS


def world(name: str) -> pytest.MarkDecorator:
    """Skip a test (or, as ``pytestmark``, a file) where the environment ``name`` is not installed.

    With ``LEAFE_NEEDS_WORLDS=1`` nothing is skipped: what is missing fails.
    """
    missing = [] if os.environ.get("LEAFE_NEEDS_WORLDS") else ENVS[name].missing()
    return pytest.mark.skipif(
        bool(missing), reason=f"{name} needs {', '.join(missing)}, not installed here: {ENVS[name].install}"
    )
