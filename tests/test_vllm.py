"""What a real vLLM server computes for a branch; needs an environment with vLLM, named by LEAFE_VLLM_PYTHON."""

import os
import runpy
from pathlib import Path

import pytest

PYTHON = os.environ.get("LEAFE_VLLM_PYTHON")
BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "prefix_cache.py"


@pytest.mark.embedded
@pytest.mark.skipif(PYTHON is None, reason="needs vLLM: set LEAFE_VLLM_PYTHON to the python of an environment with it")
def test_server_computes_of_a_branch_what_follows_the_shared_prefix() -> None:
    """Of its first prompt little more than the experience; nearly all if that came first; all without the cache."""
    pytest.importorskip("langchain_openai")
    from leafe_graph.models.embedded import embedded_model_path

    benchmark = runpy.run_path(str(BENCHMARK))
    block = benchmark["BLOCK"]
    usual, first, without = (found for _, found in benchmark["measure_all"](PYTHON, embedded_model_path()))
    for root, *branches in (usual, first, without):
        assert [branch.decision_point for branch in branches] == [*benchmark["REFLECTIONS"]]
        assert all(branch.asked == branch.counted > branch.first_asked > 6 * block for branch in branches)
        assert root.asked == root.counted > 0
    assert all(branch.first_computed <= 3 * block for branch in usual[1:])
    assert all(branch.first_computed > branch.first_asked - 3 * block for branch in first[1:])
    assert all(branch.computed == branch.asked for branch in without)
