#!/usr/bin/env bash
# Makes a virtual environment with Unsloth and its CPU back end, on top of one that has leafe-graph[train]: its packages
# are seen through a .pth file, so nothing is installed twice and nothing in it is changed.
# On a GPU, `pip install ".[unsloth]"` is the way: Unsloth then wants Triton and xformers too.
#
#   scripts/install_unsloth_cpu.sh VENV      PYTHON=.venv/bin/python for the environment below it
#   VENV/bin/python -m leafe_graph train … --backend unsloth
set -euo pipefail

venv=${1:?usage: scripts/install_unsloth_cpu.sh VENV}
below=${PYTHON:-python3}

"$below" -c 'import torch, peft, leafe_graph' || {
    echo "$below lacks what Unsloth goes on top of: PYTHON=… must have leafe-graph[train]" >&2
    exit 1
}
"$below" -m venv "$venv"
"$venv/bin/python" - "$("$below" -c 'import site; print(*site.getsitepackages(), sep="\n")')" <<'SITE'
import sys, sysconfig
from pathlib import Path

lines = [f"import site; site.addsitedir({folder!r})\n" for folder in sys.argv[1].splitlines()]
Path(sysconfig.get_path("purelib"), "below.pth").write_text("".join(lines))
SITE
# Without dependencies: by its own account Unsloth also needs Triton, xformers, torchvision and a newer certifi than some
# indexes have. On a CPU it runs without. These versions are known to go together.
"$venv/bin/python" -m pip --disable-pip-version-check --quiet install --no-deps \
    "unsloth==2026.10.9" "unsloth-zoo==2026.10.9" "trl==1.14.2"
"$venv/bin/python" -c 'import unsloth; print("Unsloth", unsloth.__version__, "is ready")'
