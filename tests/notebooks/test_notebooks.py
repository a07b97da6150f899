"""Every notebook runs from top to bottom, shows what it promises, and passes no data on."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from usermirror_gym.data import load_dataset

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SMALL = {
    "02_benchmark_recbole": 'AGENTS = ("Random", "Pop", "ItemKNN", "EASE")\n'
    "USERS, STEPS, FIDELITY_SCENES = 12, 3, 40",
    "03_train_rl_agent": "STEPS, EVAL_USERS, LLM_USERS = 5_000, 30, 20\n"
    'RECBOLE = ("ItemKNN", "EASE")',
    "04_build_your_own_simulator": "BOOKS, READERS, LOANS, SCENES = 60, 80, 20, 150",
}
"""Parameters of a quick run, in place of the cell with that tag."""
PLOTS = {"02_benchmark_recbole": 4, "03_train_rl_agent": 3, "04_build_your_own_simulator": 3}


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def of_kind(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    return [o["data"][kind] for o in outputs(notebook) if kind in o.get("data", {})]


def test_there_are_four() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_is_stored_passes_no_data_on(path: Path) -> None:
    """Plots and numbers are stored, so that they can be read without running; titles are not."""
    notebook = nbformat.read(path, as_version=4)
    stored = "\n".join(
        str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", ""))
        + str(o.get("data", {}).get("text/html", "")) for o in outputs(notebook)
    )  # fmt: skip
    titles = [t for t in load_dataset().titles[1:] if len(t) > 8]
    assert not [title for title in titles if title in stored]
    # A title ends like "..., The (1995)": years in brackets are a sign of more.
    assert not re.search(r"\((19|20)\d\d\)", stored)
    assert not [o for o in outputs(notebook) if o["output_type"] == "error"]
    assert "/tmp/" not in stored
    for cell in notebook.cells:
        assert not cell.get("outputs") or "no-output" not in cell.metadata.get("tags", [])


@pytest.mark.parametrize("stem", PLOTS)
def test_plots_can_be_seen_without_running(stem: str) -> None:
    notebook = nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4)
    assert len(of_kind(notebook, "image/png")) >= PLOTS[stem]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = SMALL[path.stem]
    NotebookClient(notebook, timeout=900, kernel_name="python3").execute(cwd=str(FOLDER))
    if path.stem.startswith("01"):
        shown = of_kind(notebook, "text/html")
        assert len(shown) >= 3
        assert "none of these" in shown[-1]
        assert "um-chosen" in shown[-1]
    else:
        assert len(of_kind(notebook, "image/png")) >= PLOTS[path.stem]
