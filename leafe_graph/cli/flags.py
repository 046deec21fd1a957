"""How the flags are shown and misread: groups, what a value looks like, and one line for what is not understood.

pydantic-settings makes argparse's parsers of the commands' models; what is said here about a flag follows from its
field, so a field that is added needs nothing.
"""

import json
import re
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel
from pydantic_settings import BaseSettings, CliPositionalArg, CliSettingsSource

from ..importing import __version__
from ..text import did_you_mean

VALUES = {
    "int": "N",
    "float": "X",
    "str": "TEXT",
    "Path": "PATH",
    "list[Path]": "PATH",
    "list[int]": "N,N",
    "list[str]": "TEXT",
    "dict[str,Any]": "KEY=VALUE",
    "{str,list[str]}": "TEXT",
}
"""What a value looks like, by the field's type."""
GROUPS = {
    "Environment": "what is played",
    "Choosing": "what is played",
    "Shown": "the prompts",
    "Texts": "the prompts",
    "Acting": "how the policy acts",
    "Spread": "where it plays",
    "Traced": "where it is told",
    "Play": "how the policy acts",
    "Limits": "bounds of a task's tree",
    "TaskBudget": "budget of each task",
    "TotalBudget": "budget of the whole run",
}
"""The group of a flag, by the class of settings that its field is from."""
REQUIRED, REST = "required", "more"


class Flags(CliSettingsSource[Any]):
    """The command line of a model whose fields are subcommands."""

    def __init__(self, commands: type[BaseSettings]) -> None:
        self._groups: dict[tuple[Any, str], Any] = {}
        super().__init__(
            commands, cli_exit_on_error=False, add_argument_method=self._flag, add_parser_method=self._command
        )
        version = {"version": f"%(prog)s {__version__}", "help": "show the version and exit"}
        self.root_parser.add_argument("--version", action="version", **version)

    def _command(self, commands: Any, name: str, **how: Any) -> Any:
        model = model_of(self.settings_cls, name)
        needed = [spelt(model, field) for field, info in model.model_fields.items() if info.is_required()]
        needed = [each if each.isupper() else f"{each} {each.strip('-').upper()}" for each in needed]
        how["description"] = cleandoc(how["description"])
        return commands.add_parser(name, usage=" ".join(["leafe", name, *needed, "[options]"]), **how)

    def _flag(self, parser: Any, *names: str, **how: Any) -> Any:
        command, _, flag = how.get("dest", "").partition(".")
        if how.get("nargs") == "+":  # several arguments of one place: what stands in one is a text, commas included
            how["type"] = json.dumps
        if flag:
            how["help"] = re.sub(r" \((default: (None|False)?|default factory: \w+|required)\)", "", how["help"])
            if "metavar" in how:
                how["metavar"] = VALUES.get(how["metavar"], re.sub(r"^list\[(.*)\]$", r"\1", how["metavar"]))
            parser = self._group(parser, model_of(self.settings_cls, command), flag)
        return parser.add_argument(*names, **how)

    def _group(self, parser: Any, model: type[BaseModel], flag: str) -> Any:
        """The group that a flag of this command belongs to; a command of few flags has none."""
        own: dict[str, str] = getattr(model, "flag_groups", {})
        order = [*model.model_fields]
        name = next(name for name, info in model.model_fields.items() if flag in (name, *_aliases(info)))
        homes = [each.__name__ for each in model.__mro__ if name in getattr(each, "model_fields", {})]
        if not own and not any(each.__name__ in GROUPS for each in model.__mro__):
            return parser
        if model.model_fields[name].is_required():
            title = REQUIRED
        elif own:
            title = own[max((first for first in own if order.index(first) <= order.index(name)), key=order.index)]
        else:
            title = GROUPS.get(homes[-1], REST)
        for each in (REQUIRED, *(own or GROUPS).values(), REST):  # in the order in which help shows them
            if (parser, each) not in self._groups:
                self._groups[parser, each] = parser.add_argument_group(each)
        return self._groups[parser, title]


def model_of(commands: type[BaseSettings], name: str) -> type[BaseModel]:
    """The settings of a command."""
    kinds: Any = commands.model_fields[name].annotation
    model: type[BaseModel] = next(kind for kind in kinds.__args__ if kind is not type(None))
    return model


def told(commands: type[BaseSettings], args: list[str], wrong: str) -> str:
    """What argparse did not understand, in a line: what was seen, what was probably meant, and where all is listed."""
    wrong = wrong.removeprefix("error parsing CLI: ")
    command = next((arg for arg in args if not arg.startswith("-")), "")
    if not command:
        return f"{wrong}; leafe --help lists all flags and commands"
    if command not in commands.model_fields:
        return f"there is no command {command!r}{did_you_mean(command, commands.model_fields)}; leafe --help lists all"
    hint = f"; leafe {command} --help lists all"
    if unknown := re.match(r"unrecognized arguments: (\S+)", wrong):
        seen = unknown[1].partition("=")[0]
        if seen.startswith("-"):
            return f"{command} has no flag {seen}{did_you_mean(seen, flags(model_of(commands, command)))}{hint}"
        return f"{command} does not know what to do with {seen!r}{hint}"
    return wrong.removeprefix("argument ") + hint


def flags(model: type[BaseModel]) -> Iterator[str]:
    """The flags of a command."""
    for name, info in model.model_fields.items():
        for alias in _aliases(info) or [name]:
            yield spelt(model, alias)
        if info.annotation is bool:
            yield f"--no-{name}".replace("_", "-")


def _aliases(info: Any) -> list[str]:
    alias = info.validation_alias
    return [*map(str, alias.choices)] if isinstance(alias, AliasChoices) else [alias] if alias else []


def spelt(model: type[BaseModel], name: str) -> str:
    """How a field, or an alias of one, is given on the command line: RUN, -n, --max-turns."""
    info = model.model_fields.get(name)
    if info is not None and get_args(CliPositionalArg)[-1] in info.metadata:
        return name.upper()
    return f"-{name}" if len(name) == 1 else f"--{name}".replace("_", "-")
