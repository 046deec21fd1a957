"""What a project has beside its code: who may cite it, how it is released, what its workflows run."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts"))
import oldest  # noqa: E402
import release_check  # noqa: E402


def read(name: str) -> Any:
    """A YAML file of the project."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def at_version(folder: Path, version: str, *, unreleased: str = "") -> Path:
    """The files of a release that the script reads, as they are when that version is cut."""
    for name in ("pyproject.toml", "CITATION.cff"):
        text = (ROOT / name).read_text(encoding="utf-8")
        (folder / name).write_text(re.sub(r'(?m)^(version(?: =|:) )"?[\d.]+"?$', rf'\g<1>"{version}"', text))
    (folder / "CITATION.cff").write_text((folder / "CITATION.cff").read_text().replace(f'"{version}"', version))
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n## Unreleased\n{unreleased}\n## {version}\n\nMuch.\n")
    return folder


def test_every_file_names_the_version() -> None:
    """The package, the citation and the newest release in the changelog."""
    assert len(set(release_check.told_versions(ROOT).values())) == 1


@pytest.mark.parametrize(
    ("tag", "unreleased", "said"),
    [
        ("1.2.3", "", "is no tag of a release"),
        ("v1.2.4", "", "pyproject.toml says 1.2.3, CITATION.cff says 1.2.3, CHANGELOG.md says 1.2.3"),
        ("v1.2.3", "- **Adds:** more.\n", "has 1 lines under Unreleased"),
    ],
)
def test_what_is_no_release_is_not_built(tag: str, unreleased: str, said: str, tmp_path: Path) -> None:
    """With what was seen and what to do."""
    with pytest.raises(SystemExit, match=said):
        release_check.check(tag, at_version(tmp_path, "1.2.3", unreleased=unreleased))


def test_a_tag_of_the_version_is_released(tmp_path: Path) -> None:
    """What the workflow would upload: a wheel and a source distribution whose metadata name the version."""
    pytest.importorskip("build", reason="pip install --group dev")
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git checkout")
    names = tracked.stdout.rstrip("\0").split("\0")
    for name in names:
        if not name.startswith(("tests/", "docs/", "benchmarks/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    at_version(source, "1.2.3")
    version = release_check.check("v1.2.3", source)
    files = release_check.build(version, tmp_path / "dist", source)
    assert [file.name for file in files] == ["leafe_graph-1.2.3-py3-none-any.whl", "leafe_graph-1.2.3.tar.gz"]
    with zipfile.ZipFile(files[0]) as wheel:
        assert "leafe_graph/py.typed" in wheel.namelist()


def test_the_citation_says_what_is_needed() -> None:
    """The fields that GitHub's reader and Zenodo ask for, and the paper."""
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version", "license", "references"} <= set(citation)
    assert "arXiv:2603.16843" in str(citation["references"])


def test_issue_forms_have_what_github_asks_for() -> None:
    """A name, a description, and fields with unique ids and labels."""
    forms = [file for file in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if file.name != "config.yml"]
    assert len(forms) == 3
    for file in forms:
        form = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert form["name"] and form["description"]
        ids = [field["id"] for field in form["body"]]
        assert len(set(ids)) == len(ids) > 0
        assert all(field["type"] in ("input", "textarea") and field["attributes"]["label"] for field in form["body"])


def test_workflows_run_what_is_there() -> None:
    """Each command is a target of the Makefile, a file of the checkout, or installs a package."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = []
    for file in (ROOT / ".github/workflows").glob("*.yml"):
        workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}  # more is given to a job by name
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        commands += [step["run"].split() for step in steps if "run" in step]
    assert len(commands) >= 5
    for program, *arguments in commands:
        if program == "make":
            assert set(arguments) <= targets
        elif program == "python":
            assert (ROOT / arguments[0]).is_file()
        else:
            assert program == "pip" or (ROOT / program).is_file()
    pythons = read(".github/workflows/ci.yml")["jobs"]["matrix"]["strategy"]["matrix"]["python"]
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert pythons == classifiers


def test_oldest_dependencies_are_those_of_the_package() -> None:
    """What `make oldest-test` installs: each dependency's lower bound, of the package and of the extras asked for."""
    found = dict(line.split("==") for line in oldest.constraints(["sqlite", "langchain"]))
    assert {"langgraph", "pydantic", "langgraph-checkpoint-sqlite", "langchain"} <= found.keys()
    assert "torch" not in found and found["langgraph"].count(".") == 2
    with pytest.raises(SystemExit, match="there is no extra lite; there are hf, "):
        list(oldest.constraints(["lite"]))


def test_a_dependency_without_a_lower_bound_has_no_oldest(tmp_path: Path) -> None:
    """It is named."""
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["a>=1", "b<2"]\noptional-dependencies = {}\n')
    with pytest.raises(SystemExit, match="'b<2' has no lower bound"):
        list(oldest.constraints([], tmp_path / "pyproject.toml"))
