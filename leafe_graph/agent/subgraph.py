"""The agent as a subgraph of a bigger graph: it plays, reflects and rewinds there, but its past cannot be forked.

Asked to go on from a checkpoint *inside* a subgraph, LangGraph (1.1.7 to 1.2.22 at least, upstream issue #8458) gives
the subgraph a new namespace and runs it from its start: the whole episode would be played and paid for once more, and
nobody would notice. `refuse_time_travel` notices.
"""

from langgraph.config import get_config

from ..errors import ConfigError


def refuse_time_travel() -> None:
    """Called where an episode starts.

    Raises:
        ConfigError: a checkpoint of an episode that this agent played as a subgraph was asked for.
    """
    where = get_config().get("configurable", {})
    own = str(where.get("checkpoint_ns", "")).rpartition("|")[0]  # without the node's own part
    for namespace, checkpoint in where.get("checkpoint_map", {}).items():
        if own and namespace != own and _without_ids(namespace) == _without_ids(own):
            raise ConfigError(
                f"checkpoint {checkpoint} was asked for, which an agent kept as the subgraph {namespace!r} of a bigger "
                "graph: LangGraph would run the whole episode again instead of going on from there. Go on from a "
                "checkpoint of the bigger graph itself, or run the agent alone, with a checkpointer of its own, and "
                "fork that"
            )


def _without_ids(namespace: str) -> list[str]:
    """The nodes' names of ``outer:ID|inner:ID``; the ids are new in every run."""
    return [part.partition(":")[0] for part in namespace.split("|")]
