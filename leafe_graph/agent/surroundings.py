"""What a middleware has to know of the agent that it is in: its channels, its tools, and who else is there."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, NotRequired, Required, get_args, get_origin

from langchain_core.messages import ToolMessage
from langgraph.channels import AnyValue, BinaryOperatorAggregate, DeltaChannel, LastValue, UntrackedValue
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command, Overwrite

from ..env.worlds import Stateless
from ..errors import ConfigError
from .points import RAN, ran, tool_name, was_rejected

OWN = "leafe"
"""The channel that the middleware keeps its account in."""
_BASE = {"messages", "jump_to", "structured_response", OWN}
"""Channels that every such agent has."""
_LAST = (".before_model", ".after_agent")
"""Hooks of which ours is the last: what others do to the history would come behind a point, or before the judge."""
_BEHIND = {"SkillsMiddleware"}
"""`create_deep_agent` puts it behind all that it is given; what it adds behind a point goes back with the point."""
_TO = "branch:to:"
"""How the channels begin by which nodes are called, in the order of the nodes."""
_ASKS = f"{_TO}HumanInTheLoopMiddleware.after_model"
"""The channel of an agent that asks a person."""
_SESSIONS = ("langchain.agents.middleware.shell_tool", "langchain_mcp_adapters")
"""Where tools come from that hold a session, with processes and connections that no world brings back."""


class Surroundings:
    """The agent around a middleware, as far as it is known; refuses what would be rewound wrongly.

    Args:
        name: the middleware's.
        worlds: as it was given.
        compensate: the functions that undo a tool's work, by tool.
        irreversible: tools whose work cannot be undone.
        restore: channels that are brought back, or by name whether they are.
    """

    def __init__(
        self,
        name: str,
        worlds: Any,
        compensate: Mapping[str, Callable[..., Any]],
        irreversible: Collection[str],
        restore: Collection[str] | Mapping[str, bool],
    ) -> None:
        self.name, self.worlds, self.compensate = name, worlds, dict(compensate)
        said = restore if isinstance(restore, Mapping) else dict.fromkeys(restore, True)
        self.restore = frozenset(each for each, back in said.items() if back) - {"messages"}
        self._left = frozenset(said) - self.restore
        self.irreversible = set(irreversible)
        self.asked_about: set[str] = set()
        """Tools that a person is asked about before they run."""
        self._channels: Mapping[str, Any] | None = None
        self._public: set[str] | None = None
        self._checked: set[frozenset[str]] = set()
        self.model: Any = None
        """The agent's own, once it was seen."""

    # ---- the agent

    def attach(self, agent: Any) -> None:
        """Learn all from the compiled agent.

        Raises:
            ConfigError: it is another agent, or something in it cannot be rewound.
        """
        nodes: Mapping[str, Any] = getattr(agent, "nodes", {})
        if f"{self.name}.before_model" not in nodes:
            raise ConfigError(f"attach() was given {type(agent).__name__}, in which there is no {self.name}")
        self._refuse_not_last(nodes)
        public = set(agent.output_channels) - _BASE
        for name in sorted(self.restore):
            if name not in agent.channels:
                raise ConfigError(f"restore={name!r}: the agent has no such channel; it has {sorted(public)}")
            if name not in public or isinstance(agent.channels[name], UntrackedValue):
                raise ConfigError(f"restore={name!r}: that is another middleware's own account, and is left alone")
        self._refuse_kinds(agent.channels)
        self._channels, self._public = agent.channels, public
        for node in nodes.values():
            asked = getattr(getattr(getattr(node.bound, "func", None), "__self__", None), "interrupt_on", None)
            if isinstance(asked, Mapping):
                self.asked_about |= set(asked)
        known = getattr(getattr(nodes.get("tools"), "bound", None), "tools_by_name", {})
        for name, tool in known.items():
            if self._is_open(name, tool):
                _refuse_session(name, tool)
        bound = getattr(nodes["model"].bound, "func", None)
        if self.model is None and bound is not None:
            cells = dict(zip(bound.__code__.co_freevars, bound.__closure__ or (), strict=True))
            self.model = cells["model"].cell_contents if "model" in cells else None

    def seen_in(self, configurable: Mapping[str, Any]) -> None:
        """Learn from a run what kinds of channels there are, where nobody has attached the agent.

        Raises:
            ConfigError: the middleware is not the agent's last, or there are channels of which nobody can say whether
                they are to be restored.
        """
        if self._channels is not None:
            return
        found: Any = next(
            (each for each in getattr(configurable.get("__pregel_read"), "args", ()) if isinstance(each, Mapping)), None
        )
        once = f"write agent = middleware.attach(agent) once, so that {self.name} knows"
        if found is None:
            raise ConfigError(f"the agent's channels cannot be seen from within: {once} them")
        self._refuse_not_last([each.removeprefix(_TO) for each in found if each.startswith(_TO)])
        self._refuse_kinds(found)
        others = {each for each in found if ":" not in each and not each.startswith("_")}  # the private, by custom
        if unknown := sorted(others - _BASE - self.restore - self._left):
            raise ConfigError(
                f"the agent has further channels, {', '.join(unknown)}: {once} which are private; or say of each "
                f'whether it is brought back, restore={{"{unknown[0]}": True}}'
            )
        if _ASKS in found and not self.irreversible:
            raise ConfigError(
                f"the agent asks a person (HumanInTheLoopMiddleware): {once} about which tools; or name those that "
                "cannot be undone in irreversible="
            )
        self._channels = dict(found)

    def _refuse_not_last(self, nodes: Collection[str]) -> None:
        others = (name.partition(".")[0] for name in nodes if name.endswith(_LAST))
        last = [name for name in others if name not in _BEHIND][-1]
        if last != self.name:
            raise ConfigError(f"{self.name} stands before {last}; put it last in middleware=[…]")

    def _refuse_kinds(self, channels: Mapping[str, Any]) -> None:
        for name in sorted(self.restore & channels.keys()):
            if not isinstance(channels[name], LastValue | AnyValue | BinaryOperatorAggregate | DeltaChannel):
                kind = type(channels[name]).__name__
                raise ConfigError(f"restore={name!r}: it is a {kind}, which cannot be brought back to what it held")

    @property
    def asks(self) -> bool:
        """Whether a person is asked about tools before they run."""
        return bool(self.asked_about) or _ASKS in (self._channels or {})

    # ---- its tools

    @property
    def barriers(self) -> set[str]:
        """Tools behind which nothing is gone back."""
        return self.irreversible | self.asked_about - self.compensate.keys()

    def is_barrier(self, tool: Any, name: str) -> bool:
        """Whether nothing is gone back behind a run of this tool."""
        return name in self.barriers or (getattr(tool, "metadata", None) or {}).get("leafe") == "irreversible"

    def marked(self, request: Any, answer: Any) -> Any:
        """A tool's answer, which tells what has run where that matters."""
        call = request.tool_call
        barrier = self.is_barrier(request.tool, call["name"])
        if barrier or call["name"] in self.compensate:
            update = answer.update if isinstance(answer, Command) and isinstance(answer.update, dict) else {}
            for message in [answer, *(update.get("messages") or [])]:
                if isinstance(message, ToolMessage) and message.tool_call_id == call["id"]:
                    did = {"name": call["name"], "args": call["args"]} | ({"irreversible": True} if barrier else {})
                    message.response_metadata = {**message.response_metadata, RAN: did}
        return answer

    def passed_barrier(self, messages: Sequence[Any]) -> bool:
        """Whether an irreversible tool is among those that have run."""
        return any(
            (message.response_metadata.get(RAN) or {}).get("irreversible")
            or ((name := tool_name(message, messages)) in self.barriers and not was_rejected(message, name))
            for message, _ in ran(messages)
        )

    def _is_open(self, name: str, tool: Any) -> bool:
        """Whether nothing is said of what a tool changes."""
        said = (getattr(tool, "metadata", None) or {}).get("leafe")
        return not (said or name in self.compensate or name in self.barriers)

    def check(self, tools: Sequence[Any]) -> None:
        """See the tools of a request, each set of them once.

        Raises:
            ConfigError: what one of them changes would stay when its call is taken back.
        """
        by_name = {name: tool for tool in tools if (name := getattr(tool, "name", None))}
        if (names := frozenset(by_name)) in self._checked:
            return
        said = {name: (getattr(tool, "metadata", None) or {}).get("leafe") for name, tool in by_name.items()}
        if wrong := next((value for value in said.values() if value not in (None, "irreversible", "stateless")), None):
            raise ConfigError(f'a tool\'s metadata["leafe"] is {wrong!r}; expected "irreversible" or "stateless"')
        self.irreversible |= {name for name, value in said.items() if value == "irreversible"}
        open_ = [name for name, tool in by_name.items() if self._is_open(name, tool)]
        for name in open_:
            _refuse_session(name, by_name[name])
        if open_ and not self.worlds and not isinstance(self.worlds, Stateless):
            raise ConfigError(
                f"the tools {sorted(open_)} may change what no world brings back: give worlds=[…], compensate= or "
                "irreversible=, or worlds=STATELESS if they only look things up"
            )
        self._checked.add(names)

    # ---- its channels

    def kept(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The values that a point keeps."""
        return {name: state[name] for name in sorted(self.restore) if name in state}

    def seen(self, state: Mapping[str, Any]) -> dict[str, str]:
        """Digests of the public channels that are not restored."""
        names = sorted((self._public or set()) - self.restore - self._left)
        dumps = JsonPlusSerializer().dumps_typed
        return {name: hashlib.sha256(dumps(state[name])[1]).hexdigest()[:16] for name in names if name in state}

    def restored(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        """The update that brings the named channels back; what was not there is empty."""
        update: dict[str, Any] = {}
        for name in sorted(self.restore):
            channel = (self._channels or {}).get(name)
            value = kept.get(name, _empty(channel))
            # An Overwrite that is written to a channel without a reducer would be stored itself.
            reduces = isinstance(channel, BinaryOperatorAggregate | DeltaChannel)
            update[name] = Overwrite(value) if reduces else value
        return update

    def refuse_changed(self, then: Mapping[str, str], state: Mapping[str, Any], t: int) -> None:
        """Refuse a rewind that would leave something public as it became.

        Raises:
            ConfigError: a channel that is not named in ``restore=`` changed since.
        """
        now = self.seen(state)
        if changed := [name for name in {**then, **now} if then.get(name) != now.get(name)]:
            raise ConfigError(
                f"the channels {sorted(changed)} changed since decision {t} and would stay as they are: name them in "
                "restore="
            )


def _refuse_session(name: str, tool: Any) -> None:
    home = str(getattr(getattr(tool, "func", None) or getattr(tool, "coroutine", None), "__module__", ""))
    if home.startswith(_SESSIONS):
        raise ConfigError(
            f"the tool {name!r} holds a session ({home}), with processes or connections that no world brings back: "
            'name it in irreversible=, or set metadata["leafe"] = "stateless" if it only looks things up'
        )


def _empty(channel: Any) -> Any:
    """What a channel holds where nobody has written: an empty list of lists, else nothing."""
    kind = getattr(channel, "typ", None)
    while get_origin(kind) in (Annotated, NotRequired, Required):
        kind = get_args(kind)[0]
    kind = get_origin(kind) or kind
    return kind() if kind in (list, dict, set, str, tuple) else None
