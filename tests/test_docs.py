"""The Python blocks of every page run as printed, and print what their comments say."""

import inspect
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from agents import calls
from tiny_models import tiny_llama

import leafe_graph
from leafe_graph import explore
from leafe_graph.evaluation import Result
from leafe_graph.evaluation.results import TaskResult
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
BLOCKS = {
    name: found
    for name, text in PAGES.items()
    if (found := re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
}
MODEL = ScriptedModel(reply=lambda messages, seed: "right")
Patch = pytest.MonkeyPatch


def environments(patch: Patch) -> dict[str, Any]:
    """What the page calls yours: an environment that Gymnasium knows."""
    gymnasium = pytest.importorskip("gymnasium", reason='pip install ".[gymnasium]"')
    from leafe_graph.env import to_gymnasium
    from leafe_graph.envs import sokoban

    for name in ("MyEnv-v0", "Sokoban-v0"):
        patch.delitem(gymnasium.registry, name, raising=False)
    gymnasium.register("MyEnv-v0", entry_point=lambda: to_gymnasium(GridWorld(), grid_tasks(50)))
    return {"explore": explore, "model": MODEL, "SokobanEnv": sokoban.SokobanEnv, "sokoban": sokoban}


def evaluation(patch: Patch) -> dict[str, Any]:
    """Results of a base and of three seeds, and those of moves at random."""
    for place, solved in (("eval/base", 1), *((f"{seed}/eval/leafe", 3) for seed in range(3)), ("floor", 0)):
        file = Path(f"{place}.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        tasks = [TaskResult(task_id=f"t{number}", n=4, c=(solved + number) % 5) for number in range(6)]
        Result(policy=file.stem, n=4, tasks=tasks).save(file)
    return {}


def reliability(patch: Patch) -> dict[str, Any]:
    """A model, an environment, and tasks."""
    return {"__name__": "__main__", "model": MODEL, "MyEnv": GridWorld, "tasks": grid_tasks(2)}


def serving(patch: Patch) -> dict[str, Any]:
    """A server that stands in for vLLM's, which other tests start."""

    class Server:
        def __init__(self, model: str) -> None:
            self.names: list[str] = []

        def __enter__(self) -> "Server":
            return self

        def __exit__(self, *error: object) -> None: ...

        def load_adapter(self, adapter: str, *, name: str) -> str:
            self.names.append(name)
            return name

        def model(self, name: str, *, temperature: float) -> Any:
            assert name in self.names and temperature == 1.0
            return MODEL

    patch.setattr(leafe_graph, "VllmServer", Server, raising=False)
    return {"MyEnv": GridWorld, "tasks": grid_tasks(2)}


def training(patch: Patch) -> dict[str, Any]:
    """A model where the page says that one is."""
    pytest.importorskip("transformers", reason='pip install ".[hf]"')
    tiny_llama(Path("runs/one/adapter/merged"), ["right"], "{{ messages[0]['content'] }}")
    return {}


def dropin(patch: Patch) -> dict[str, Any]:
    """A project, a shop, their tools, and a model that goes by the provider's name."""
    agents = pytest.importorskip("langchain.agents", reason='pip install ".[langchain]"')
    pytest.importorskip("langchain_openai", reason='pip install ".[openai]"')
    patch.setenv("OPENAI_API_KEY", "none")
    Path("project").mkdir()

    def answer(messages: Any, seed: int | None) -> Any:
        return "Done." if messages[-1].type == "tool" else calls(("refund", {}))

    patch.setattr("leafe_graph.models.load.load_model", lambda name: ScriptedModel(reply=answer))
    files = iter(range(100))

    def copy_of_shop(task: Any) -> Path:
        file = Path(f"shop-{next(files)}.db").resolve()
        with sqlite3.connect(file) as db:
            db.execute("CREATE TABLE refunds (id)")
        return file

    def build(model: Any, world: Any) -> Any:
        def refund() -> str:
            """Refund the order."""
            with sqlite3.connect(world.path) as db:
                db.execute("INSERT INTO refunds VALUES (1)")
            return "done"

        return agents.create_agent(model, [refund])

    def is_refunded(world: Any, task: Any) -> bool:
        with sqlite3.connect(world.path) as db:
            return bool(db.execute("SELECT * FROM refunds").fetchall())

    def tool(text: str) -> str:
        """Do something."""
        return text

    tools = {name: tool for name in ("read_file", "edit_file", "shell")}
    return {**tools, "build": build, "copy_of_shop": copy_of_shop, "is_refunded": is_refunded, "tasks": ["Refund it."]}


def cluster(patch: Patch) -> dict[str, Any]:
    """A run that is told of a cluster, and is played here."""
    from leafe_graph import Workers

    signature = inspect.signature(explore)

    def alone(*given: Any, **more: Any) -> Any:
        told = signature.bind(*given, **more).arguments
        assert told["workers"] in (8, Workers(64, address="auto", runtime_env={"working_dir": "."}))
        return explore(MODEL, *given[1:], **{name: value for name, value in more.items() if name != "workers"})

    patch.setattr(leafe_graph, "explore", alone, raising=False)
    return {"MyEnv": GridWorld, "tasks": grid_tasks(2)}


SETUP: dict[str, Callable[[Patch], dict[str, Any]]] = {
    f"{each.__name__}.md": each for each in (environments, evaluation, reliability, serving, training, dropin, cluster)
}
"""What pages speak of as yours; the others are whole by themselves."""


@pytest.mark.parametrize("page", BLOCKS)
def test_blocks_run_as_printed(
    page: str, capsys: pytest.CaptureFixture[str], monkeypatch: Patch, tmp_path: Path
) -> None:
    """One after the other; ``print(…)  # text`` prints that text."""
    monkeypatch.chdir(tmp_path)
    session = {"__name__": "page"} | (SETUP[page](monkeypatch) if page in SETUP else {})
    for number, block in enumerate(BLOCKS[page]):
        capsys.readouterr()
        exec(compile(block, f"{page}, block {number}", "exec"), session)
        if promised := re.findall(r"^print\(.*\)  # (.+)$", block, flags=re.MULTILINE):
            assert capsys.readouterr().out.splitlines() == promised


def test_every_page_has_a_place_on_the_site() -> None:
    """In the order of the menu, which names nothing else."""

    class Loader(yaml.SafeLoader): ...

    Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)
    menu = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"]
    named = [page for part in menu for page in ([part] if isinstance(part, str) else next(iter(part.values())))]
    assert sorted(named) == sorted(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    """Where the pages lie, and on the site, where what is outside of docs/ is carried along."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", PAGES[page])
    assert [target for target in targets if not (DOCS / target).is_file()] == []


def test_every_example_is_told_of() -> None:
    """By its name, on the page of examples."""
    told = set(re.findall(r"\]\(\.\./(examples/[^)]+)\)", PAGES["examples.md"]))
    files = (file for file in (ROOT / "examples").rglob("*.*") if "__pycache__" not in file.parts)
    assert sorted(str(file.relative_to(ROOT)) for file in files) == sorted(told)


def test_every_public_name_is_in_the_reference() -> None:
    """By the module that it lives in; records and errors by theirs, which are there whole."""
    told = set(re.findall(r"^::: (leafe_graph\S*)", PAGES["api.md"], re.MULTILINE))
    homes = {name: f"leafe_graph.{leafe_graph._HOME[name]}" for name in leafe_graph.__all__}
    assert [f"{home}.{name}" for name, home in homes.items() if not {home, f"{home}.{name}"} & told] == []


def test_links_of_the_site_that_lead_nowhere_are_told(tmp_path: Path, monkeypatch: Patch) -> None:
    """A page or a place that is not there; what leads elsewhere is not asked."""
    exceptions = pytest.importorskip("mkdocs.exceptions", reason="pip install --group dev")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import docs_site

    (tmp_path / "a.html").write_text('<a href="b.html#here">b</a><a href="https://c/">c</a><img src="a.html">')
    (tmp_path / "b.html").write_text('<h2 id="here">b</h2><a href="#here">up</a>')
    docs_site.on_post_build({"site_dir": str(tmp_path)})
    (tmp_path / "b.html").write_text('<a href="d.html">d</a>')
    with pytest.raises(exceptions.PluginError, match=r"(?s)a.html: b.html#here.*b.html: d.html"):
        docs_site.on_post_build({"site_dir": str(tmp_path)})


def test_the_reference_is_made_of_this_checkout(tmp_path: Path, monkeypatch: Patch) -> None:
    """Links of an earlier build that lead nowhere, or to another place, are replaced or gone."""
    pytest.importorskip("mkdocs.exceptions", reason="pip install --group dev")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import docs_site

    monkeypatch.setattr(docs_site, "ROOT", tmp_path)
    for part in ("leafe_graph", "envs", "finetune"):
        (tmp_path / part).mkdir()
    (tmp_path / "leafe_graph/new.py").touch()
    built = tmp_path / "build/reference/leafe_graph"
    built.mkdir(parents=True)
    for name in ("envs", "old.py"):
        (built / name).symlink_to(tmp_path / "moved" / name)
    docs_site.on_startup()
    assert {link.name: link.resolve().relative_to(tmp_path).as_posix() for link in built.iterdir()} == {
        "new.py": "leafe_graph/new.py",
        "envs": "envs",
        "finetune": "finetune",
    }
    docs_site.on_startup()
    assert (tmp_path / "leafe_graph/new.py").is_file()
