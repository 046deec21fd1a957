"""``leafe bench``: methods side by side."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import CliPositionalArg, NoDecode

from ..files import UserFile, UserPath
from ..parsing import key_values
from ..settings import Settings


class Bench(Settings):
    """Compare methods: learn and judge each with every seed, as a YAML file says; the same command again goes on.

    Example: leafe bench examples/recipes/bench-sokoban.yaml --jobs 2
    """

    config: CliPositionalArg[UserFile]
    """The YAML file; docs/bench.md tells its fields."""
    out: UserPath | None = None
    """The folder, instead of what the file says; runs/NAME-OF-THE-FILE unless either does."""
    jobs: int = Field(default=1, ge=1)
    """Cells that are worked on at the same time, each in a process of its own with its share of the processors."""
    only: Annotated[list[str], NoDecode, BeforeValidator(lambda given: given.split(","))] = Field(default_factory=list)
    """Work on some of the file's methods alone: --only base,leafe. The tables are of all that is there."""
    set: Annotated[dict[str, Any], NoDecode, BeforeValidator(key_values)] = Field(default_factory=dict)
    """Other values for fields of the file: --set methods.leafe.train.beta=2,eval.samples=16"""
    dry_run: bool = False
    """Only list the cells, and which of them are there."""

    def cli_cmd(self) -> None:
        """``leafe bench``."""
        from ..bench import bench, read_bench
        from ..bench.tables import dry_run, shown
        from ..phases.console import console

        config = read_bench(self.config, self.set | ({"out": self.out} if self.out else {}))
        if self.dry_run:
            console.print(dry_run(config.only(self.only) if self.only else config))
            return
        bench(config, only=self.only, at_once=self.jobs)
        for each in shown(config):
            console.print(each)
