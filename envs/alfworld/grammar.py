"""The grammar of an ALFWorld game in words: parsed once by textworld's parsers, derived without copies of the state."""

import copy
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType
from typing import Any, Protocol

from leafe_graph.errors import EnvError

from .fast_downward import LOCK

_GOAL = re.compile(r'(?<="Your task is to: )[^"{}\[\]#<>;|]*(?=")')

Predicate = tuple[str, list[tuple[str, str]]]
"""A predicate's name and its placeholders (name, type)."""
Mapped = dict[tuple[str, str], str]
"""What a rule's placeholders (name, type) stand for: ids of things."""


class Scene(Protocol):
    """What sentences are about."""

    @property
    def infos(self) -> Mapping[str, Any]:
        """What can be said of each thing, by id: textworld's EntityInfo."""
        ...

    def holding(self, name: str, types: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
        """For which things a predicate over these types holds now, in textworld's order."""
        ...


class Grammar:
    """A game's grammar."""

    def __init__(self, text: str) -> None:
        self.actions, self._rules = _grammar(text)

    def tell(self, text: str, mapping: Mapped, scene: Scene) -> str:
        """A text of the grammar in words, as things stand."""
        return "".join([self._say(symbol, mapping, scene) for symbol in _parse_symbols(text)])

    def _say(self, symbol: Any, mapping: Mapped, scene: Scene) -> str:
        match type(symbol).__name__:
            case "TerminalSymbol":
                return str(symbol.symbol)
            case "NonterminalSymbol":
                return self._rewrite(symbol.symbol, mapping, scene)
            case "EvalSymbol":
                known = {name: scene.infos[thing] for (name, _), thing in mapping.items()}
                return str(eval(_compile(symbol.expression), {}, known))  # the grammar's own Python
            case "ConditionalSymbol":
                return "".join(self._each(symbol, mapping, scene))
            case "ListSymbol":
                return self._list(self._each(symbol.symbol, mapping, scene), mapping, scene)
        raise EnvError(f"the game's grammar has a {type(symbol).__name__}, which textworld's did not have before")

    def _rewrite(self, name: str, mapping: Mapped, scene: Scene) -> str:
        """By the first production rule whose condition holds."""
        for rule in self._rules.get(name, ()):
            if not rule.condition or next(_match(_parse_query(rule.condition), mapping, scene), None) is not None:
                return "".join([self._say(symbol, mapping, scene) for symbol in rule.rhs])
        raise EnvError(f"the game's grammar has no rule for #{name}# that applies")

    def _each(self, symbol: Any, mapping: Mapped, scene: Scene) -> list[str]:
        """Its words for each way in which its condition holds."""
        found = _match(_parse_query(symbol.given), mapping, scene) if symbol.given else [mapping]
        return [self._say(symbol.expression, match, scene) for match in found]

    def _list(self, items: list[str], mapping: Mapped, scene: Scene) -> str:
        if not items:
            return self._rewrite("list_empty", mapping, scene)
        if len(items) == 1:
            return items[0]
        between = self._rewrite("list_separator", mapping, scene)
        return between.join(items[:-1]) + self._rewrite("list_last_separator", mapping, scene) + items[-1]


def _match(predicates: list[Predicate], mapping: Mapped, scene: Scene) -> Iterator[Mapped]:
    """Each way to give the placeholders different things so that all predicates hold, in textworld's order."""
    if not predicates:
        yield mapping
        return
    name, placeholders = predicates[0]
    for arguments in scene.holding(name, tuple([placeholder[1] for placeholder in placeholders])):
        matched, used = dict(mapping), set(mapping.values())
        for placeholder, thing in zip(placeholders, arguments, strict=True):
            known = matched.get(placeholder)
            if known is None and thing not in used:
                matched[placeholder] = thing
                used.add(thing)
            elif known != thing:
                break
        else:
            yield from _match(predicates[1:], matched, scene)


def _grammar(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The actions and the production rules of a grammar, parsed once for all that differ in nothing but the task."""
    goals = _GOAL.findall(text)
    if len(goals) != 1:
        return _parse_grammar(text)
    actions, rules = _parse_grammar(_GOAL.sub("-", text))
    task = copy.copy(rules["task"][0])
    task.rhs = _parse_symbols(f"Your task is to: {goals[0]}")
    return actions, {**rules, "task": [task]}


@functools.lru_cache(maxsize=8)
def _parse_grammar(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The actions and the production rules of a grammar."""
    from textworld.envs.pddl import logic

    with LOCK:
        parsed = logic.GameLogic(domain="", grammar=text)
    return parsed.actions, parsed.grammar._rules


@functools.lru_cache(maxsize=4096)
def _parse_symbols(text: str) -> list[Any]:
    from textworld.envs.pddl import textgen

    with LOCK:
        symbols: list[Any] = textgen._parse_and_convert(text, rule_name="symbols")
    return symbols


@functools.lru_cache(maxsize=4096)
def _parse_query(text: str) -> list[Predicate]:
    """The predicates of a conjunctive query, each with its placeholders."""
    from textworld.logic import Rule

    with LOCK:
        predicates = Rule.parse_conjunctive_query(text).preconditions
    return [(predicate.name, [(ph.name, ph.type) for ph in predicate.parameters]) for predicate in predicates]


@functools.lru_cache(maxsize=4096)
def _compile(expression: str) -> CodeType:
    return compile(expression.strip(), "<grammar>", "eval")
