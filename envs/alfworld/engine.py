"""ALFWorld's engine at speed: textworld's grammar and Fast Downward's world, without doing the same work twice.

Fast Downward says which operators apply, applies them and judges the goal, as in textworld's ``PddlEnv``. What is
parsed or translated is kept: a grammar once for all games that differ in nothing but the task's sentence, a game's PDDL
once for all processes, the words of a command once for a game. A sentence is derived from textworld's own grammar
symbols, but without copies of the state at every symbol. Nothing of textworld is patched.
"""

import contextlib
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from leafe_graph.env.common import read_json, stamp

from . import fast_downward as downward
from .grammar import Grammar, Mapped

_GAMES = 64
"""Games that are kept translated in this process."""
Kind = tuple[str, tuple[str, ...]]
"""A predicate's name and the types of its arguments."""
Facts = dict[Kind, set[tuple[str, ...]]]
"""What holds: by predicate and types, the ids of the things it holds for."""


class Command(NamedTuple):
    """What an operator is called and how its effect is told."""

    text: str
    mapping: Mapped
    feedback: str
    """The grammar's text that describes the effect."""


def load(path: Path) -> "Game":
    """The game of a ``game.tw-pddl`` file, read and translated once as long as the file stays as it is."""
    with downward.LOCK:  # many at once: the first translates, the others find it
        return _load(path, stamp(path))


@functools.lru_cache(maxsize=_GAMES)
def _load(path: Path, stamped: tuple[int, ...]) -> "Game":
    return Game(read_json(path.read_text(encoding="utf-8")))


def _fact(atom: str) -> tuple[str, tuple[str, ...]]:
    """The name and arguments of an atom as Fast Downward writes it: ``Atom name(a, b)`` or ``NegatedAtom …``."""
    sign, _, rest = atom.partition(" ")
    name, _, arguments = rest[:-1].partition("(")
    return ("not_" + name if sign == "NegatedAtom" else name), tuple(arguments.split(", ")) if arguments else ()


class Game:
    """A game as it is before anybody plays it, shared by all that play it."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        from textworld.logic import Type, TypeHierarchy

        text, self.domain, self.problem = data["grammar"], data["pddl_domain"], data["pddl_problem"]
        self.digest = hashlib.sha256("\0".join((text, self.domain, self.problem)).encode()).hexdigest()[:16]
        self.grammar = Grammar(text)
        task, self.sas = downward.parse_task(self.domain, self.problem), downward.sas_of(self.domain, self.problem)
        self._hierarchy = TypeHierarchy()
        for kind in task.types:
            with contextlib.suppress(ValueError):  # ALFWorld's domain has an "object" beside PDDL's own
                self._hierarchy.add(Type(kind.name, kind.supertype_names))
        self.type_of: dict[str, str] = {thing.name: thing.type_name for thing in task.objects}
        self._parameters = {
            action.name: [(parameter.name.strip("?"), parameter.type_name) for parameter in action.parameters]
            for action in task.actions
        }
        names = re.findall(r"^begin_operator\n(.*)$", self.sas.decode(), re.MULTILINE)
        self.operators = sorted(set(names))
        """All operators, in an order that does not depend on the translation."""
        self.numbers = {operator: number for number, operator in enumerate(self.operators)}
        self._fluents = {effect.literal.predicate for action in task.actions for effect in action.effects}
        self._commands: dict[str, Command] = {}
        self._kinds: dict[tuple[str, tuple[str, ...]], list[Kind]] = {}
        with contextlib.closing(World()) as world:
            self.facts = self._initial_facts(task, world.atoms(self.sas))
            self.infos = self._infos()
            self.names = {thing: info.name for thing, info in self.infos.items()}
            world.start(self)
            self.intro = world.tell("#intro#", {})
            """The first observation."""

    def _initial_facts(self, task: Any, atoms: Iterable[str]) -> Facts:
        """What the problem says, and what Fast Downward says holds at the start."""
        from fast_downward.translate.pddl.conditions import Atom

        stated = [(atom.predicate, tuple(atom.args)) for atom in task.init if isinstance(atom, Atom)]
        facts: Facts = {}
        for name, arguments in [*stated, *map(_fact, atoms)]:
            if name != "=" and not name.startswith("not_"):
                facts.setdefault(self.kind(name, arguments), set()).add(arguments)
        return facts

    def _infos(self) -> dict[str, Any]:
        """What sentences can say of each thing; its name is the one that ALFWorld makes of its id."""
        from alfworld.agents.utils.misc import Demangler
        from textworld.generator.game import EntityInfo

        infos: dict[str, Any] = {}
        for thing in sorted({thing for held in self.facts.values() for arguments in held for thing in arguments}):
            info = infos[thing] = EntityInfo(thing, self.type_of[thing])
            info.name, info.definite, info.indefinite = thing, "the", "a"
        names = Demangler(game_infos=infos, shuffle=False)
        for info in infos.values():
            info.name = names.demangle_alfred_name(info.id)
        return infos

    def kind(self, name: str, arguments: tuple[str, ...]) -> Kind:
        """What a fact is kept under."""
        return name, tuple([self.type_of[thing] for thing in arguments])

    def kinds(self, name: str, types: tuple[str, ...]) -> list[Kind]:
        """What facts are kept under that a predicate can match, in textworld's order."""
        if (known := self._kinds.get((name, types))) is None:
            matching = self._hierarchy.multi_subtypes([self._hierarchy.get(kind) for kind in types])
            known = self._kinds[name, types] = [(name, tuple([kind.name for kind in kinds])) for kinds in matching]
        return known

    def command(self, operator: str, world: "World") -> Command:
        """What an operator is called in a world's state."""
        if (known := self._commands.get(operator)) is not None:
            return known
        name, *arguments = operator.split()
        action = self.grammar.actions[name]
        mapping = dict(zip(self._parameters[name], arguments, strict=False))
        text = world.tell(action.template, mapping).format(**self.names)
        command = Command(text, mapping, action.feedback_rule)
        if self._is_constant(action.template):
            self._commands[operator] = command
        return command

    def _is_constant(self, template: str) -> bool:
        """Whether a command's words are the same in every state."""
        asked = re.findall(r"[|&]\s*([\w-]+)\(", template)
        return "#" not in template and self._fluents.isdisjoint(name.removeprefix("not_") for name in asked)

    def walkthrough(self) -> list[str]:
        """Commands with which the planner wins from the start; empty where it finds none.

        The planner is asked about the things that the goal is about first: a whole kitchen can take it a minute. Its
        plan counts if it wins the whole game.
        """
        for problem in (downward.relevant(self.problem), self.problem):
            operators = downward.plan(self.domain, problem)
            with contextlib.closing(World()) as world, contextlib.suppress(KeyError):
                world.start(self)
                commands = []
                for operator in operators:
                    commands.append(self.command(operator, world).text)
                    world.apply(operator)
                if world.won:
                    return commands
        return []


class World:
    """A game being played, on a copy of Fast Downward's library of its own; for one thread at a time."""

    def __init__(self) -> None:
        self._lib: Any = downward.take_library()
        self._operators: dict[str, Any] = {}
        self._commands: dict[str, str] | None = None
        self._facts: Facts = {}
        self._sorted: dict[Kind, list[tuple[str, ...]]] = {}
        self.game: Game | None = None
        self._start = 0
        self.applied: list[int] = []
        """Numbers of the operators that led here from the start."""

    def close(self) -> None:
        """Give the library's copy back."""
        lib, self._lib = self._lib, None
        if lib is not None:
            downward.give_back(lib)

    @property
    def _playing(self) -> Game:
        assert self.game is not None
        return self.game

    def atoms(self, sas: bytes) -> list[str]:
        """What Fast Downward says holds at the start, and what does not."""
        import fast_downward

        self._lib.load_sas(sas)
        atoms = (fast_downward.Atom * self._lib.get_state_size())()
        self._lib.get_state(atoms)
        return [atom.name for atom in atoms]

    def start(self, game: Game, applied: Iterable[int] = ()) -> None:
        """Stand at a game's start, or where the operators of these numbers lead to from there.

        Raises:
            LookupError: one of them does not exist, or does not apply where it should.
        """
        if game is not self.game:
            self._lib.load_sas(game.sas)
            self.game, self._start = game, self._lib.get_state_id()
        self._lib.set_state_id(self._start)
        self._facts = {kind: held.copy() for kind, held in game.facts.items()}
        self._sorted.clear()
        self.applied = []
        self._look()
        for number in applied:
            self.apply(game.operators[number])

    def _look(self) -> None:
        """See which operators apply."""
        import fast_downward

        operators = (fast_downward.Operator * self._lib.get_applicable_operators_count())()
        self._lib.get_applicable_operators(operators)
        self._operators = {}
        for operator in operators:  # several may have one name, since an "or" is split; textworld takes the first
            self._operators.setdefault(operator.name, operator)
        self._commands = None

    @property
    def commands(self) -> dict[str, str]:
        """What can be done now: commands, in no order that matters, and the operator of each."""
        if self._commands is None:
            self._commands = {}
            for operator in self._operators:
                self._commands.setdefault(self._playing.command(operator, self).text, operator)
        return self._commands

    @property
    def won(self) -> bool:
        """Whether the goal is reached."""
        return bool(self._lib.check_goal())

    @property
    def holds(self) -> list[str]:
        """Everything that is so, sorted: worlds of a game that say the same are in one state.

        What was looked at is left out: only effects speak of it, no precondition, goal or sentence does.
        """
        return sorted(
            " ".join((name, *arguments))
            for (name, _), held in self._facts.items()
            if name != "checked" and not name.startswith("not_")
            for arguments in held
        )

    def do(self, command: str) -> str | None:
        """What a command brings about, in words; None where it is none of `commands`."""
        operator = self.commands.get(command)
        if operator is None:
            return None
        _, mapping, feedback = self._playing.command(operator, self)
        self.apply(operator)
        return self.tell(feedback, mapping)

    def apply(self, operator: str) -> None:
        """Apply an operator.

        Raises:
            KeyError: it does not apply here.
        """
        import fast_downward

        found = self._operators[operator]
        effects = (fast_downward.Atom * found.nb_effect_atoms)()
        self._lib.apply_operator(found.id, effects)
        for effect in effects:
            name, arguments = _fact(effect.name)
            opposite = name.removeprefix("not_") if name.startswith("not_") else f"not_{name}"
            kind, opposed = self._playing.kind(name, arguments), self._playing.kind(opposite, arguments)
            self._facts.get(opposed, set()).discard(arguments)
            self._facts.setdefault(kind, set()).add(arguments)
            self._sorted.pop(kind, None)
            self._sorted.pop(opposed, None)
        self.applied.append(self._playing.numbers[operator])
        self._look()

    @property
    def infos(self) -> dict[str, Any]:
        """What sentences can say of each thing."""
        return self._playing.infos

    def tell(self, text: str, mapping: Mapped) -> str:
        """A text of the grammar in words, as things stand."""
        return self._playing.grammar.tell(text, mapping, self)

    def holding(self, name: str, types: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """For which things a predicate holds, by kinds in textworld's order and by id."""
        for kind in self._playing.kinds(name, types):
            held = self._sorted.get(kind)
            if held is None:
                held = self._sorted[kind] = sorted(self._facts.get(kind, ()))
            yield from held
