"""See that a tag can be released, and build what is: the tag, the package and the changelog name one version.

python scripts/release_check.py v0.2.0 --out dist
"""

import argparse
import email
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def told_versions(root: Path) -> dict[str, str]:
    """The version that each file names; the changelog's is that of its newest release."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    citation = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text(), re.MULTILINE)
    released = re.search(r"^## (\d\S*)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    return {
        "pyproject.toml": project["version"],
        "CITATION.cff": citation.group(1) if citation else "none",
        "CHANGELOG.md": released.group(1) if released else "none",
    }


def unreleased(root: Path) -> list[str]:
    """Lines that the changelog has for no release yet."""
    found = re.search(
        r"^## Unreleased\n(.*?)(?=^## |\Z)", (root / "CHANGELOG.md").read_text(), re.MULTILINE | re.DOTALL
    )
    return [line for line in (found.group(1) if found else "").splitlines() if line.strip()]


def check(tag: str, root: Path = ROOT) -> str:
    """The version of a tag.

    Raises:
        SystemExit: the tag is none, or something names another version.
    """
    if not (found := re.fullmatch(r"v(\d+\.\d+\.\d+(?:rc\d+)?)", tag)):
        sys.exit(f"{tag!r} is no tag of a release; expected v1.2.3 or v1.2.3rc1")
    version = found.group(1)
    if other := {name: said for name, said in told_versions(root).items() if said != version}:
        told = ", ".join(f"{name} says {said}" for name, said in other.items())
        sys.exit(f"the tag is of {version}, but {told}: make them one")
    if lines := unreleased(root):
        sys.exit(f"CHANGELOG.md has {len(lines)} lines under Unreleased: put them under {version}")
    return version


def build(version: str, out: Path, root: Path = ROOT) -> list[Path]:
    """The source distribution and the wheel, looked into.

    Raises:
        SystemExit: the build fails, or its metadata are not those of the release.
    """
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(root)]
    if subprocess.run(command).returncode:
        sys.exit("the build failed, see above")
    files = sorted(out.glob(f"leafe_graph-{version}*"))
    (wheel,) = (file for file in files if file.suffix == ".whl")
    with zipfile.ZipFile(wheel) as held:
        (name,) = (name for name in held.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_string(held.read(name).decode())
    if (metadata["Name"], metadata["Version"]) != ("leafe-graph", version):
        sys.exit(f"{wheel.name} says it is {metadata['Name']} {metadata['Version']}, expected leafe-graph {version}")
    return files


def main() -> None:
    """Check, build, and say what was built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tag")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    for file in build(check(arguments.tag), arguments.out):
        print(file)


if __name__ == "__main__":
    main()
