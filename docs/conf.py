"""The site: ``make docs``. It needs no network, to be built or to be read."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]
os.environ.setdefault("MPLBACKEND", "Agg")

from tsl_latentgnn import __version__  # noqa: E402

from drawing import draw  # noqa: E402
from elsewhere import link  # noqa: E402

project = "tsl-latentgnn"
author = "The tsl-latentgnn authors"
copyright = "2026, the tsl-latentgnn authors"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]  # speed.md and others are written by commands, as sections

# Pages -------------------------------------------------------------------------------------------
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests run the notebooks; their outputs are kept
nb_merge_streams = True

# Docstrings --------------------------------------------------------------------------------------
autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "none"  # each argument says its type
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shapes"]
python_use_unqualified_type_names = True

# What is written once, elsewhere in the repository, is put where its links hold: docs/ is like its root.
for name in ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"):
    shutil.copy2(ROOT / name, HERE)
shutil.copy2(ROOT / "constraints.txt", HERE)
for folder in ("benchmarks", "examples"):
    shutil.rmtree(HERE / folder, ignore_errors=True)
    shutil.copytree(
        ROOT / folder,
        HERE / folder,
        ignore=shutil.ignore_patterns("__pycache__", "config", "__init__.py"),
    )

draw(HERE / "_figures" / "data_flow.svg")

# Looks -------------------------------------------------------------------------------------------
html_theme = "furo"
html_title = f"tsl-latentgnn {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["sort.js"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5c8a", "color-brand-content": "#0b5c8a"},
    "dark_css_variables": {"color-brand-primary": "#6cb8e6", "color-brand-content": "#6cb8e6"},
}
copybutton_prompt_text = r"^\$ "
copybutton_prompt_is_regexp = True


def skip(app: Any, what: str, name: str, value: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn adds to an estimator, and the fields of a named tuple, which its arguments say."""
    fields = (getattr(value, "__doc__", None) or "").startswith("Alias for field number")
    return True if fields or (name.startswith("set_") and name.endswith("_request")) else None


def show_bases(app: Any, name: str, value: Any, options: Any, bases: list[Any]) -> None:
    """Leave out bases that are nobody's business."""
    bases[:] = [base for base in bases if "._" not in f"{base.__module__}"] or [object]


def setup(app: Any) -> None:
    """Link to PyTorch, PyG, tsl and pandas by their own addresses, without asking the network for them."""
    app.connect("missing-reference", link)
    app.connect("autodoc-process-bases", show_bases)
    app.connect("autodoc-skip-member", skip)
