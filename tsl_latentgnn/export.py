"""Forecasters as files that run without this package."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.nn import Module

from ._files import replacing

FORMATS = (".pt2", ".onnx")


def export_model(
    model: Module,
    path: str | os.PathLike[str],
    inputs: Mapping[str, Tensor],
    *,
    outputs: Sequence[str] = ("forecast", "graph"),
    metadata: Mapping[str, str] | None = None,
) -> None:
    r"""Write the forward pass of a forecaster to a file that runs without tsl, PyG and this package.

    The batch size is left open, the window and the choice of inputs are as in ``inputs``. The outputs are those of
    ``model(**inputs)`` to within rounding: where two sources of a target score the same to the last digit, the file may
    choose the other one. With ``likelihood="gaussian"`` it holds the mean.

    .. code-block:: python

        export_model(model.eval(), "model.pt2", {"x": x, "u": u, "input_mask": mask})
        forecast = torch.export.load("model.pt2").module()(x=x, u=u, input_mask=mask)

        export_model(model.eval(), "model.onnx", {"x": x, "u": u, "input_mask": mask})
        session = onnxruntime.InferenceSession("model.onnx")
        forecast, *_ = session.run(None, {"x": x.numpy(), "u": u.numpy(), "input_mask": mask.numpy()})

    The program keeps no memory linear in the nodes: it sees the scores of all pairs of nodes at once.

    Args:
        model (torch.nn.Module): A :class:`~tsl_latentgnn.models.LatentGNNModel` or
            :class:`~tsl_latentgnn.models.Seq2SeqLatentGNN` in evaluation mode.
        path (str or os.PathLike): The file, ``*.pt2`` for :func:`torch.export.load` or ``*.onnx``, which needs the
            packages ``onnx`` and ``onnxscript``.
        inputs (dict): Example of the named inputs of ``model``, of any batch size, on the device of the model.
        outputs (sequence): Names of its outputs in ONNX. (default: ``("forecast", "graph")``)
        metadata (dict, optional): Texts to keep beside the program: ``metadata_props`` in ONNX, ``extra_files`` of
            :func:`torch.export.load`. (default: ``None``)

    Raises:
        TypeError: If an input is not a tensor, or ``model`` is no module, or one that trains another.
        ValueError: If ``path`` has another suffix, ``inputs`` is empty, ``model`` is in training mode, or it normalizes
            over the nodes that are not masked (``norm="batch"`` or ``"graph"`` with ``input_mask``), whose number a
            program cannot leave open.
    """
    if not isinstance(model, Module) or hasattr(model, "training_step"):  # Lightning's
        inner = ": give its .model" if isinstance(getattr(model, "model", None), Module) else ""
        raise TypeError(
            f"'model' must be the forecaster itself (got {type(model).__name__}){inner}."
        )
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"'path' must end with {' or '.join(FORMATS)} (got {str(path)!r}).")
    if model.training:
        raise ValueError("'model' must be in evaluation mode (got training mode): model.eval().")
    if not inputs:
        raise ValueError("'inputs' must hold the named inputs of the model (got none).")
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            came = type(value).__name__
            raise TypeError(f"'inputs' must hold tensors (got {came} for {name!r}).")
    norms = {getattr(module, "norm", None) for module in model.modules()}
    if "input_mask" in inputs and norms & {"batch", "graph"}:
        raise ValueError(
            "'inputs' must be without 'input_mask' for a model with norm='batch' or 'graph', "
            "whose statistics leave masked nodes out; norm='layer' or None takes it."
        )
    program = _trace(model, inputs)
    with warnings.catch_warnings(), replacing(path) as unfinished:
        # Of torch about itself; a static correlation that all layers share is whole, whatever it says of it.
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)
        if path.suffix == ".pt2":
            torch.export.save(program, unfinished, extra_files=dict(metadata or {}))
        else:
            _save_onnx(program, unfinished, outputs, metadata or {})


def _trace(model: Module, inputs: Mapping[str, Tensor]) -> ExportedProgram:
    # A batch of one would be taken for a constant.
    pairs = {name: torch.cat([value[:1], value[:1]]) for name, value in inputs.items()}
    batch = Dim("batch")
    with torch.no_grad(), warnings.catch_warnings():
        # Of torch.nn.LSTM, whose list of weights points to others while its parameters are swapped.
        warnings.filterwarnings("ignore", message="The tensor attributes? .*_flat_weights")
        return torch.export.export(
            model, (), pairs, dynamic_shapes={name: {0: batch} for name in pairs}, strict=False
        )


def _save_onnx(
    program: ExportedProgram, path: Path, outputs: Sequence[str], metadata: Mapping[str, str]
) -> None:
    translated = torch.onnx.export(
        program,
        (),
        dynamo=True,
        verbose=False,
        output_names=outputs[: len(program.graph_signature.user_outputs)],
        custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
    )
    assert translated is not None
    translated.model.metadata_props.update(metadata)
    translated.save(path, external_data=False)


def _stable_sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """A stable sort in ONNX, whose ``TopK`` takes equal values in the order of their indices."""
    from onnxscript import opset18 as op

    size: Any = op.Constant(value_ints=[x.shape[dim]])
    return op.TopK(x, size, axis=dim, largest=int(descending), sorted=1)
