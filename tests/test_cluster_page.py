"""docs/cluster.md and examples/cluster: files as Ray and KubeRay take them, commands, and the simulation's table."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import CliApp, get_subcommand

from benchmarks.simulate_cluster import HEAD, Costs, sizes
from leafe_graph.cli.main import Leafe
from leafe_graph.cli.phases import Explore

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples" / "cluster").iterdir())}
CONTAINER = {"name", "image", "resources", "volumeMounts"}


def test_commands_are_taken() -> None:
    """Every `leafe` command of the page and of the files names settings that there are, in kinds that they take."""
    texts = [re.sub(r"\\\n#\s*", " ", text) for text in (PAGE, FILES["ray.yaml"], FILES["raycluster.yaml"])]
    commands = [
        each for text in texts for each in re.findall(r"(?:^|token |-- )leafe (explore .*?)(?:'|$)", text, re.M)
    ]
    commands.append(yaml.safe_load(FILES["rayjob.yaml"])["spec"]["entrypoint"].removeprefix("leafe "))
    assert len(commands) == 5
    for command in commands:
        parsed = get_subcommand(CliApp.run(Leafe, cli_args=shlex.split(command)))
        assert isinstance(parsed, Explore) and parsed.many is not None
        assert parsed.many.address == (None if parsed.many.number == 8 else "auto")


def test_ray_up_takes_its_file() -> None:
    """By Ray's own check."""
    pytest.importorskip("ray", reason='pip install ".[ray]"')
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load(FILES["ray.yaml"])))


def _cluster(spec: dict[str, Any]) -> None:
    """It has the fields of KubeRay's RayCluster and no others, of those that are used here."""
    assert spec.keys() == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert spec["authOptions"] == {"mode": "token"}  # nobody without one gets in
    (workers,) = spec["workerGroupSpecs"]
    assert workers.keys() == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    assert spec["headGroupSpec"].keys() == {"rayStartParams", "template"}
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    for group in (workers, spec["headGroupSpec"]):
        assert group["template"].keys() == {"spec"}
        (container,) = group["template"]["spec"]["containers"]
        assert container.keys() <= CONTAINER and container["resources"]["requests"] == container["resources"]["limits"]
    cores = int(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert workers["replicas"] * cores == 64  # --workers 64, a core each


def test_kuberays_files_have_its_fields() -> None:
    """A RayCluster, and a RayJob that begins a lost run again; all of one release of Ray, the one that is tried."""
    kept, job = (yaml.safe_load(FILES[name]) for name in ("raycluster.yaml", "rayjob.yaml"))
    assert [(each["apiVersion"], each["kind"]) for each in (kept, job)] == [
        ("ray.io/v1", "RayCluster"),
        ("ray.io/v1", "RayJob"),
    ]
    _cluster(kept["spec"])
    _cluster(job["spec"].pop("rayClusterSpec"))
    assert job["spec"].keys() == {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"}
    release = kept["spec"]["rayVersion"]
    assert f"FROM rayproject/ray:{release}-py311" in PAGE
    assert re.search(rf'"ray>={release.removesuffix(".0")}', (ROOT / "pyproject.toml").read_text())


def test_the_page_shows_what_is_simulated() -> None:
    """The lines of one GPU, which are soon simulated again, as they are printed."""
    lines = [*sizes(Costs(), [1])]
    assert HEAD in lines[0] and len(lines) == 4
    assert [line for line in lines if line not in PAGE] == []
