"""The built wheel holds what it should and works without the optional packages."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from leafe_graph.envs.catalog import ENVS
from leafe_graph.errors import install

ROOT = Path(__file__).parent.parent
PACKAGES = {"leafe_graph": "leafe_graph", "envs": "leafe_graph/envs", "finetune": "leafe_graph/finetune"}
"""Folders of the checkout and of the wheel."""

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

BLOCKED = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        missing = "torch transformers peft datasets matplotlib aiosqlite langchain"
        if name.partition(".")[0] in missing.split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy so that nothing is left behind in it."""
    pytest.importorskip("build", reason="pip install --group dev")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(source / "dist"),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel in it and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*pip, str(wheel)], check=True)
    return folder


def run(installed: Path, code: str) -> str:
    """Run code with the installed wheel, the core's packages, and none of the optional ones."""
    first = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); sys.meta_path = [f for f in sys.meta_path if 'editable'"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{first} not in type(f).__module__ + str(f)]{BLOCKED}{code}"],
        cwd=installed,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_the_three_packages_and_their_data(wheel: Path) -> None:
    """All modules, the typing mark, the licence, the warm start; no tests, no top-level envs or finetune."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"leafe_graph", f"leafe_graph-{VERSION}.dist-info"}
    for folder, package in PACKAGES.items():
        files = {file.relative_to(ROOT / folder).as_posix() for file in (ROOT / folder).rglob("*.py")}
        assert {f"{package}/{file}" for file in files} <= set(names)
    data = {"leafe_graph/py.typed", "leafe_graph/envs/webshop/words.toml"}
    data |= {f"leafe_graph/report/viewer/{file.name}" for file in (ROOT / "leafe_graph/report/viewer").iterdir()}
    assert data | {f"leafe_graph/cli/demo-{policy}.yaml" for policy in ("tiny", "smollm2")} <= set(names)
    assert f"leafe_graph-{VERSION}.dist-info/licenses/LICENSE" in names
    for file in (ROOT / "envs" / "sokoban" / "warm_start_adapter").glob("*"):
        assert f"leafe_graph/envs/sokoban/warm_start_adapter/{file.name}" in names


def test_every_folder_with_python_is_a_package() -> None:
    """The list in pyproject.toml is complete: a folder that it lacks would be missing from the wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        ".".join([*package.split("/"), *file.parent.relative_to(ROOT / folder).parts])
        for folder, package in PACKAGES.items()
        for file in (ROOT / folder).rglob("*.py")
    }
    assert set(listed) == folders and listed == sorted(listed)


def test_installed_wheel_works_without_optional_packages(installed: Path) -> None:
    """The README's import line, an episode, and an error that names the extra to install."""
    out = run(
        installed,
        """
import leafe_graph, leafe_graph.envs, leafe_graph.finetune
print(leafe_graph.__file__)
for name in leafe_graph.__all__: getattr(leafe_graph, name)
try: leafe_graph.LeafeMiddleware
except leafe_graph.MissingDependency as error: assert "leafe-graph[langchain]" in str(error)
else: raise AssertionError("nothing was missing")
from leafe_graph.envs.sokoban import SokobanEnv
from leafe_graph.finetune.objectives import OBJECTIVES
assert {"leafe", "grpo"} <= {*OBJECTIVES} and "torch" not in sys.modules
from leafe_graph.testing import ScriptedModel
agent = leafe_graph.create_leafe_agent(ScriptedModel(reply=["right"]), env=SokobanEnv)
level = "#####\\n#@$.#\\n#####"
print(agent.invoke({"task": {"id": "a", "instruction": "", "options": {"level": level}}})["end"])
from leafe_graph.report.page import head, script
assert "default-src" in head({"title": "t"}) and "overviewData" in script()
from leafe_graph.finetune.train import train
try: train(leafe_graph.finetune.TrainConfig(model="m", data=["d"], out="o"))
except leafe_graph.MissingDependency as error: print(error)
""",
    )
    file, end, error = out.splitlines()
    assert Path(file).is_relative_to(installed)
    assert end == "success"
    command = re.fullmatch(
        r'training needs .* not installed: pip install "(leafe-graph\[train\] @ file://.+\.whl)"', error
    )
    assert command, error
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", command[1]]
    assert "Would install leafe-graph" in subprocess.run(pip, check=True, capture_output=True, text=True).stdout


def test_installed_command_answers(installed: Path) -> None:
    """The wheel's ``leafe`` script."""
    text = (installed / "bin" / "leafe").read_text()
    assert "from leafe_graph.cli import main" in text
    assert "usage: leafe" in run(installed, "from leafe_graph.cli import main\nmain(['--help'])")


SOURCES = "\n".join(file.read_text(encoding="utf-8") for name in PACKAGES for file in (ROOT / name).rglob("*.py"))
PAGES = "\n".join(
    file.read_text(encoding="utf-8")
    for pattern in ("*.md", "docs/*.md", "examples/**/*.[py][ya]*", "scripts/*", "tests/*.py", "Makefile")
    for file in ROOT.glob(pattern)
    if file != Path(__file__)
)
COMMIT = "0123456789012345678901234567890123456789"


@pytest.mark.parametrize(
    ("written", "command"),
    [
        ({"url": "file:///a%20b/clone", "dir_info": {"editable": True}}, 'pip install -e "/a b/clone[hf]"'),
        ({"url": "file:///clone", "dir_info": {}}, 'pip install "/clone[hf]"'),
        (
            {"url": "https://h/x.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            f'pip install "leafe-graph[hf] @ git+https://h/x.git@{COMMIT}"',
        ),
        ({"url": "https://h/x.whl", "archive_info": {}}, 'pip install "leafe-graph[hf] @ https://h/x.whl"'),
        (None, 'pip install "leafe-graph[hf]"'),
    ],
)
def test_extras_are_installed_from_where_the_package_came(
    written: dict[str, object] | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone, a Git address, a file, or an index: what pip wrote down about it (PEP 610)."""
    told = None if written is None else json.dumps(written)
    monkeypatch.setattr("importlib.metadata.Distribution.read_text", lambda self, name: told)
    monkeypatch.setattr("importlib.metadata.PathDistribution.read_text", lambda self, name: told)
    assert install("hf") == command


def test_extras_are_installed_from_the_clone_that_is_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was installed at all."""

    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", none)
    assert install("hf") == 'pip install ".[hf]"  # in the clone'


def test_every_extra_that_is_named_exists() -> None:
    """In an error, in the documentation, in an example, in a test that is skipped."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r'MissingDependency\([^)]*?extra="([\w-]+)"|\binstall\([\'"]([\w-]+)[\'"]\)', SOURCES)
    told = re.findall(r'pip install (?:-e )?"\.\[([^]]+)\]', PAGES)
    assert named and told
    assert {name for pair in named for name in pair if name} | {n for names in told for n in names.split(",")} <= {
        *extras
    }


def test_nobody_is_sent_to_an_index_that_has_no_such_package() -> None:
    """Pages say what works in a clone, and code asks `install`, which knows where the package came from."""
    assert 'pip install "leafe-graph' not in PAGES
    assert re.findall(r'pip install "leafe-graph.*', SOURCES) == [
        'pip install "leafe-graph[{extra}]{url and " @ " + url}"\''
    ]


def test_the_extra_all_is_what_the_readme_says() -> None:
    """Everything but a server, Unsloth, Ray and the environments; with these, everything but the first three."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def within(*names: str) -> set[str]:
        """Extras that these bring along, themselves included."""
        brought = {
            name for extra in names for told in extras[extra] for name in re.findall(r"[\w-]+", told.partition("[")[2])
        }
        found = {*names, *(brought & extras.keys())}
        return found if found == {*names} else within(*found)

    assert (
        "| `all` | everything but `serve`, `unsloth`, `ray` and the environments: `.[all,worlds]` has these too |"
        in PAGES
    )
    worlds = within("worlds")
    assert {env.extra for env in ENVS.values()} - {None} <= worlds
    assert extras.keys() - within("all") == {"serve", "unsloth", "ray"} | worlds
    assert extras.keys() - within("all", "worlds") == {"serve", "unsloth", "ray"}
