"""Run notebooks and store them with their outputs.

    python notebooks/execute.py 02_benchmark_recbole 04_build_your_own_simulator

Outputs of cells with the tag ``no-output`` are left out: they show rows of data that may not be
passed on.  What differs from run to run (times, progress) is left out, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


def run(name: str) -> None:
    """Execute one notebook and write it back."""
    path = HERE / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, kernel_name="python3").execute(cwd=str(HERE))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            keep = "no-output" not in cell.metadata.get("tags", [])
            cell.outputs = [o for o in cell.outputs if keep and o.get("name") != "stderr"]
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)
    print(f"{path.name}: {sum(c.cell_type == 'code' for c in notebook.cells)} cells")


def main() -> None:
    """All notebooks that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", help="without .ipynb")
    for name in parser.parse_args().names:
        run(name)


if __name__ == "__main__":
    main()
