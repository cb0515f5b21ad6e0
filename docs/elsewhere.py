"""Links of names: to other packages, and to names of this one by another of their addresses.

Sphinx would read the names of other packages from the network; a few patterns do without. A full name of this or
another linked package that nothing answers is a warning.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.util import logging

logger = logging.getLogger(__name__)

TORCH = "https://docs.pytorch.org/docs/stable/"
PYG = "https://pytorch-geometric.readthedocs.io/en/latest/generated/"
TSL = "https://torch-spatiotemporal.readthedocs.io/en/latest/modules/"
#: Pattern of a full name, and the address of its page.
PLACES = {
    r"torch\.Tensor(\.\w+)?": TORCH + "tensors.html",
    r"torch\.distributions\.[\w.]+": TORCH + "distributions.html",
    r"torch\.export\.\w+": TORCH + "export.html",
    r"(torch)\.nn\.modules\.\w+\.(\w+)": TORCH + "generated/torch.nn.{1}.html",
    r"(torch\.[\w.]+)": TORCH + "generated/{}.html",
    r"torch_geometric\.nn\.[\w.]*MessagePassing": PYG
    + "torch_geometric.nn.conv.MessagePassing.html",
    r"(torch_geometric\.data\.\w+)": PYG + "{}.html",
    r"tsl\.engines\.[\w.]+": TSL + "engines.html",
    r"tsl\.nn\.models\.[\w.]+": TSL + "nn.models.html",
    r"tsl\.data\.[\w.]+": TSL + "data.html",
    r"(pandas\.[\w.]+)": "https://pandas.pydata.org/docs/reference/api/{}.html",
    r"pytorch_lightning\.([\w.]+)": "https://lightning.ai/docs/pytorch/stable/api/lightning.pytorch.{}.html",
    r"networkx\.DiGraph": "https://networkx.org/documentation/stable/reference/classes/digraph.html",
    r"(\w+Error|\w*Warning)": "https://docs.python.org/3/library/exceptions.html#{}",
}
#: Packages whose names are to be links.
LINKED = ("tsl_latentgnn", "torch", "torch_geometric", "tsl", "pandas", "pytorch_lightning")


def address(name: str) -> str | None:
    """Return the address of the page that documents a name of another package; ``None`` if none is known."""
    for pattern, page in PLACES.items():
        if found := re.fullmatch(pattern, name):
            return page.format(*found.groups(""))
    return None


def documented_name(name: str, known: Any) -> str | None:
    """Return by which of the known names a class, or its member, is documented; ``None`` if by none."""
    tail = re.search(r"\.[A-Z]\w*(\.\w+)?$", name)
    found = [] if tail is None else [other for other in known if other.endswith(tail[0])]
    return min(found, key=len, default=None)  # the others are inside


def link(app: Any, env: Any, node: Any, contnode: Any) -> nodes.Element | None:
    """Make a link of a reference that Sphinx found no answer to."""
    name = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    if name.startswith("tsl_latentgnn."):
        domain = env.get_domain("py")
        if other := documented_name(name, domain.objects):
            return domain.resolve_xref(
                env, node["refdoc"], app.builder, "obj", other, node, contnode
            )
    elif page := address(name):
        return nodes.reference("", "", contnode, internal=False, refuri=page)
    if name.partition(".")[0] in LINKED:
        logger.warning("Nothing documents %s.", name, location=node)
    return None
