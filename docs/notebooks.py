"""Run the tutorials, and keep what they print: ``make notebooks``, or ``python docs/notebooks.py NAME...``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).with_name("tutorials")


def main(names: list[str]) -> None:
    """Run the named tutorials, or all."""
    # A kernel is no Jupyter, of which tqdm asks for widgets.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    for path in [TUTORIALS / f"{name}.ipynb" for name in names] or sorted(
        TUTORIALS.glob("*.ipynb")
    ):
        notebook = nbformat.read(path, as_version=4)
        with TemporaryDirectory() as folder:  # for what it writes
            client = NotebookClient(
                notebook,
                timeout=600,
                record_timing=False,  # which changes from run to run
                resources={"metadata": {"path": folder}},
            )
            client.execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
