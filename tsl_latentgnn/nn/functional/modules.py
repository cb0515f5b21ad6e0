"""What may be assumed of a layer that somebody may have replaced: quantized, adapted, pruned, hooked."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module


def computes_as(module: Module, kind: type[Module]) -> bool:
    """Whether ``module`` does what ``kind`` does with its parameters, so that they may stand in for a call.

    Not so where it was replaced by one of another forward (quantized, with LoRA), where a hook makes its weight
    (pruned, spectral norm) or sees its output, and where the weight is no array of numbers (a quantized tensor).
    """
    if type(module).forward is not kind.forward or "forward" in vars(module):
        return False
    if module._forward_pre_hooks or module._forward_hooks or module._backward_hooks:
        return False
    return not any(hasattr(value, "__tensor_flatten__") for value in module.parameters())


def weight_dtype(module: Module) -> torch.dtype | None:
    """The dtype of the weight of a layer, or ``None`` where it is not one of floating point numbers."""
    weight = getattr(module, "weight", None)
    return weight.dtype if isinstance(weight, Tensor) and weight.is_floating_point() else None
