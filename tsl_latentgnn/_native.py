"""torch_scatter and torch_sparse in pure PyTorch, for tsl 0.9.5, which cannot be imported without them.

Importing this module puts stand-ins in the place of each of the two that is not installed. They hold what tsl uses,
and say what they are: their ``__version__`` is :data:`STAND_IN_VERSION`, and a name that they lack raises with the
command that installs the real extension. Processes that are started anew (spawn, forkserver), such as the workers of
a loader, import it first. It imports torch and PyG, but not tsl.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor

INSTALL_NATIVE = 'pip install --no-build-isolation "tsl-latentgnn[native]"'

#: A version below every real one, for those who ask whether an extension is new enough.
STAND_IN_VERSION = "0.0.0+tsl.latentgnn.stand.in"


# ------------------------------------------------------------------------------ torch_scatter
# What tsl uses of it, with the signatures and the values of the real functions. tsl compiles the
# callers with torch.jit.script, so these keep to what TorchScript understands. One difference: the
# gradient of a minimum or maximum that several values share is split evenly between them.


def broadcast(src: Tensor, other: Tensor, dim: int) -> Tensor:
    """Expand ``src`` to the shape of ``other``; a 1-D ``src`` runs along ``dim``."""
    dim = dim + other.dim() if dim < 0 else dim
    shape = list(src.shape)
    if len(shape) == 1:
        shape = [1] * dim + shape
    shape = shape + [1] * (other.dim() - len(shape))
    return src.reshape(shape).expand(other.size())


def _scatter_extremum(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, size: list[int], reduce: str
) -> Tensor:
    # As in the real one, NaN never wins, and a group in which nothing can win (empty, or -inf only
    # under "max") gives 0: tsl masks attention scores with -inf and relies on it.
    worst = float("-inf") if reduce == "max" else float("inf")
    if src.is_floating_point():
        src = src.masked_fill(src.isnan(), worst)
    if out is not None:
        return out.scatter_reduce_(dim, index, src, reduce="a" + reduce, include_self=True)
    best = torch.zeros(size, dtype=src.dtype, device=src.device)
    best = best.scatter_reduce(dim, index, src, reduce="a" + reduce, include_self=False)
    if src.is_floating_point():
        best = best.masked_fill(best == worst, 0.0)
    return best


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce the values of ``src`` that share an index along ``dim``.

    Args:
        src: Values, of any shape.
        index: Group of each value, broadcast to the shape of ``src`` by :func:`broadcast`.
        dim: Dimension to reduce. (default: ``-1``)
        out: Tensor to reduce into, in place. ``"mean"`` divides what it held, too. (default: a new
            one, in which empty groups are 1 under ``"mul"`` and 0 otherwise)
        dim_size: Size of a new output in ``dim``. (default: ``index.max() + 1``)
        reduce: ``"sum"``, ``"add"``, ``"mul"``, ``"mean"``, ``"min"`` or ``"max"``. (default: ``"sum"``)

    Raises:
        ValueError: If ``reduce`` is none of these.
    """
    index = broadcast(index, src, dim)
    size = list(src.shape)
    if out is not None:
        size = list(out.shape)
    elif dim_size is not None:
        size[dim] = dim_size
    elif index.numel() == 0:
        size[dim] = 0
    else:
        size[dim] = int(index.max()) + 1

    if reduce == "min" or reduce == "max":
        return _scatter_extremum(src, index, dim, out, size, reduce)
    if reduce == "mul":
        if out is None:
            out = torch.ones(size, dtype=src.dtype, device=src.device)
        return out.scatter_reduce_(dim, index, src, reduce="prod", include_self=True)
    if reduce == "sum" or reduce == "add" or reduce == "mean":
        if out is None:
            out = torch.zeros(size, dtype=src.dtype, device=src.device)
        out = out.scatter_add_(dim, index, src)
        if reduce == "mean":
            count = torch.zeros(size, dtype=src.dtype, device=src.device)
            count = count.scatter_add_(dim, index, torch.ones_like(src)).clamp(min=1)
            if out.is_floating_point():
                out.div_(count)
            else:
                out.div_(count, rounding_mode="floor")
        return out
    raise ValueError(
        "'reduce' must be one of 'sum', 'add', 'mul', 'mean', 'min', 'max' (got '" + reduce + "')."
    )


def _segment_of_positions(indptr: Tensor, src: Tensor, length: int) -> Tensor:
    """Segment of each of ``length`` positions, counted from 1: 0 lies before the first segment.

    Its dimensions are those of ``src`` up to the last of ``indptr``, then 1, to be expanded.
    """
    dim = indptr.dim() - 1
    lead = list(src.shape)[:dim]
    indptr = indptr.expand(lead + [indptr.size(dim)]).contiguous()  # noqa: RUF005 (TorchScript)
    positions = torch.arange(length, dtype=indptr.dtype, device=indptr.device)
    positions = positions.expand(lead + [length]).contiguous()  # noqa: RUF005 (TorchScript)
    segment = torch.searchsorted(indptr, positions, right=True)
    return segment.reshape(list(segment.shape) + [1] * (src.dim() - segment.dim()))


def segment_csr(
    src: Tensor, indptr: Tensor, out: Tensor | None = None, reduce: str = "sum"
) -> Tensor:
    """Reduce the ranges ``indptr[..., i]:indptr[..., i + 1]`` of ``src``.

    Args:
        src: Values, of any shape.
        indptr: Borders of the ranges in its last dimension, which is the dimension of ``src`` that
            is reduced. The dimensions before it are those of ``src``, or 1.
        out: Tensor to write the result to. (default: a new one)
        reduce: ``"sum"``, ``"add"``, ``"mean"``, ``"min"`` or ``"max"``; an empty range gives 0. (default: ``"sum"``)

    Raises:
        ValueError: If ``reduce`` is none of these.
    """
    if reduce == "mul":
        raise ValueError("'reduce' must be one of 'sum', 'add', 'mean', 'min', 'max' (got 'mul').")
    dim = indptr.dim() - 1
    count = max(indptr.size(dim) - 1, 0)
    segment = _segment_of_positions(indptr, src, src.size(dim)).expand(src.size())
    # Two more groups take the values before the first and after the last range.
    result = scatter(src, segment, dim, None, count + 2, reduce).narrow(dim, 1, count)
    return result if out is None else out.copy_(result)


def gather_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Repeat the ``i``-th value of ``src`` over the range ``indptr[..., i]:indptr[..., i + 1]``.

    Args:
        src: One value for each range, in the last dimension of ``indptr``.
        indptr: Borders of the ranges in its last dimension. The dimensions before it are those of ``src``, or 1.
        out: Tensor to write the result to; it keeps its values outside of the ranges.
            (default: a new one, of size ``indptr[..., -1]`` in that dimension, zero outside)

    Raises:
        ValueError: If ``src`` does not hold one value for each range.
    """
    dim = indptr.dim() - 1
    count = max(indptr.size(dim) - 1, 0)
    if src.size(dim) != count:
        raise ValueError(
            "'src' must have size " + str(count) + " in dimension " + str(dim) + ", one value for "
            "each range of 'indptr' (got " + str(src.size(dim)) + ")."
        )
    length = int(indptr.reshape(-1)[-1]) if indptr.numel() > 0 else 0
    if out is not None:
        length = out.size(dim)
    size = list(src.shape)
    size[dim] = length
    segment = _segment_of_positions(indptr, src, length).expand(size)
    if out is None:
        out = torch.zeros(size, dtype=src.dtype, device=src.device)
    if count == 0:
        return out
    values = src.gather(dim, (segment - 1).clamp(0, count - 1))
    return out.copy_(torch.where((segment > 0) & (segment <= count), values, out))


# ------------------------------------------------------------------------------- torch_sparse
# A type that nothing is an instance of, and functions that therefore have nothing to work on.


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise ImportError(
            f"'torch_sparse.{name}' needs the native extension torch-sparse: {INSTALL_NATIVE}"
        )

    refuse.__name__ = refuse.__qualname__ = name
    return refuse


class SparseTensor:
    """Stands for ``torch_sparse.SparseTensor`` in annotations and ``isinstance``; cannot be made.

    Raises:
        ImportError: On construction, with the command that installs the real one.
    """

    __init__ = _refusing("SparseTensor")
    from_edge_index = staticmethod(_refusing("SparseTensor.from_edge_index"))
    from_dense = staticmethod(_refusing("SparseTensor.from_dense"))
    from_scipy = staticmethod(_refusing("SparseTensor.from_scipy"))


# -------------------------------------------------------------------------- placing stand-ins


def _put_stand_ins() -> None:
    """Put a stand-in in the place of each extension that is not installed."""
    scatter_absent, sparse_absent = _is_absent("torch_scatter"), _is_absent("torch_sparse")
    if scatter_absent or sparse_absent:
        # PyG looks for both when it is imported, and has to find that they are not there.
        importlib.import_module("torch_geometric.typing")
    if scatter_absent:
        utils = _stand_in("torch_scatter.utils", broadcast=broadcast)
        functions = {"scatter": scatter, "segment_csr": segment_csr, "gather_csr": gather_csr}
        sys.modules["torch_scatter.utils"] = utils
        sys.modules["torch_scatter"] = _stand_in("torch_scatter", utils=utils, **functions)
    if sparse_absent:
        names = ("cat", "fill_diag", "matmul", "remove_diag", "set_diag")
        refusing = {name: _refusing(name) for name in names}
        sys.modules["torch_sparse"] = _stand_in(
            "torch_sparse", SparseTensor=SparseTensor, **refusing
        )


def _is_absent(name: str) -> bool:
    return sys.modules.get(name) is None and importlib.util.find_spec(name) is None


def _stand_in(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name, f"Stand-in for the part of {name} that tsl uses.")
    # importlib.util.find_spec raises ValueError on a loaded module without a spec.
    module.__spec__ = ModuleSpec(name, loader=None, is_package=True)
    module.__path__ = []

    def refuse_name(attribute: str) -> NoReturn:
        if attribute.startswith("__"):  # what probes of Python and of other packages ask for
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        extension = name.partition(".")[0].replace("_", "-")
        raise AttributeError(
            f"'{name}.{attribute}' needs the native extension {extension}: {INSTALL_NATIVE}"
        )

    vars(module).update(contents, __version__=STAND_IN_VERSION, __getattr__=refuse_name)
    return module


# ------------------------------------------------------------------------------ new processes
# One that is not forked gets its work as a pickle, which may name what is tsl's before anything of this package.


def _reduce_process(process: BaseProcess) -> tuple[Any, ...]:
    reduced: tuple[Any, ...] = process.__reduce_ex__(2)  # type: ignore[assignment]
    function, args, *rest = reduced
    return _call, (function, *args), *rest


def _call(function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function``, in a process that has found this one here, and with it the stand-ins."""
    return function(*args)


def _forget_stdin() -> None:
    """Of a program from the standard input Python says that its file is ``<stdin>``, which no new process finds."""
    main = sys.modules["__main__"]
    if getattr(main, "__file__", None) == "<stdin>":
        del main.__file__


_put_stand_ins()
_forget_stdin()
for _name in ("Process", "SpawnProcess", "ForkServerProcess"):
    if hasattr(multiprocessing.context, _name):  # Windows has no fork server
        ForkingPickler.register(getattr(multiprocessing.context, _name), _reduce_process)
