"""Run the notebooks of examples/ in place, so that a reader sees what they print.

    python scripts/notebooks.py

What is kept is what they say: no progress, no warnings, no times, no versions.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}
"""Models as small as these are no faster with more threads, and much slower where other work shares the processors."""


def played(notebook: Path, folder: Path) -> Any:
    """The notebook as it is after all its cells were run, in an empty folder.

    Raises:
        CellExecutionError: a cell raised.
    """
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    found = nbformat.read(notebook, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    with tempfile.TemporaryDirectory() as sockets:  # nobody else can connect to these
        config = Config(ConnectionFileMixin={"transport": "ipc", "ip": f"{sockets}/kernel"})
        client = NotebookClient(found, timeout=600, record_timing=False, resources=where, config=config)
        client.execute(env=os.environ | QUIET)
    found.metadata["language_info"] = {"name": "python"}
    for cell in found.cells:
        if cell.cell_type == "code":
            cell.outputs = _as_one([output for output in cell.outputs if output.get("name") != "stderr"])
    return found


def _as_one(outputs: list[Any]) -> list[Any]:
    """Without the parts in which a stream happened to come."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def main() -> None:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(EXAMPLES.glob("*.ipynb")))
    import nbformat

    for notebook in parser.parse_args().notebooks:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(played(notebook, Path(folder)), notebook)
        print(notebook)


if __name__ == "__main__":
    main()
