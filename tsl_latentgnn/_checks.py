"""Checks at the door: each names the argument, what came and what was expected."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

#: The largest size that torch takes.
LARGEST_INT = 2**63 - 1
#: Devices that go on while a check of values is under way, and raise when they come to it.
ASYNC_DEVICES = ("cuda",)
#: Devices with autocast. A constant, as torch.compile of PyTorch 2.11 cannot ask for it.
AUTOCAST_DEVICES = tuple(
    kind
    for kind in ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla")
    if torch.amp.is_autocast_available(kind)
)


def check_int(name: str, value: Any, minimum: int | None = None, maximum: int | None = None) -> int:
    """Return ``value`` if it is an integer in ``[minimum, maximum]``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        came = f"shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise TypeError(f"'{name}' must be an int (got {came} of type {type(value).__name__}).")
    value = int(value)  # so that nothing computes in few bits with it
    _check_bounds(name, value, minimum, LARGEST_INT if maximum is None else maximum, "an int")
    return value


def read_positive(text: str) -> int:
    """Return the number that an option of a command line says, an int >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be an int >= 1 (got {text!r})")
    return int(text)


def check_float(
    name: str,
    value: Any,
    minimum: float | None = None,
    maximum: float | None = None,
    *,
    exclusive_minimum: bool = False,
) -> float:
    """Return ``value`` if it is a finite number in ``[minimum, maximum]``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"'{name}' must be a number (got {value!r} of type {type(value).__name__})."
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not -math.inf < number < math.inf:  # as torch.compile can follow it
        raise ValueError(f"'{name}' must be finite (got {value!r}).")
    if exclusive_minimum and minimum is not None and number <= minimum:
        raise ValueError(f"'{name}' must be > {minimum} (got {value!r}).")
    _check_bounds(name, number, minimum, maximum, "a number")
    return number


def _check_bounds(name: str, value: Any, minimum: Any, maximum: Any, what: str) -> None:
    if minimum is not None and value < minimum:
        raise ValueError(f"'{name}' must be {what} >= {minimum} (got {value!r}).")
    if maximum is not None and value > maximum:
        raise ValueError(f"'{name}' must be {what} <= {maximum} (got {value!r}).")


def check_bool(name: str, value: Any) -> bool:
    """Return ``value`` if it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"'{name}' must be a bool (got {value!r} of type {type(value).__name__}).")
    return value


def check_choice(name: str, value: Any, choices: Collection[Any]) -> Any:
    """Return ``value`` if it is one of ``choices``."""
    # Not `value in choices`, which an array makes ambiguous.
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        raise ValueError(f"'{name}' must be one of {list(choices)} (got {value!r}).")
    return value


def check_tensor(name: str, value: Any, shape: str = "") -> Tensor:
    """Return ``value`` if it is a tensor; ``shape`` says in words of which one."""
    if not isinstance(value, Tensor):
        words = f"torch.Tensor {shape}".rstrip()
        raise TypeError(f"'{name}' must be a {words} (got {type(value).__name__}).")
    return value


def check_float_tensor(name: str, value: Any, shape: str, sizes: tuple[int | None, ...]) -> Tensor:
    """Return ``value`` if it is a floating point tensor of the given sizes.

    Args:
        name: Name of the argument, for the message.
        value: What came.
        shape: The expected shape in words, such as ``"[B, T, N, F]"``.
        sizes: The expected size of each dimension; ``None`` accepts any size of at least one.
    """
    check_tensor(name, value, shape)
    if not value.is_floating_point():
        raise TypeError(f"'{name}' must be a floating point tensor (got {value.dtype}).")
    check_shape(name, value, shape, sizes)
    return value


def check_shape(name: str, value: Tensor, shape: str, sizes: tuple[int | None, ...]) -> None:
    """Raise unless ``value`` has the given sizes; ``None`` accepts any size of at least one."""
    if value.dim() != len(sizes):
        raise ValueError(
            f"'{name}' must have {len(sizes)} dimensions {shape} (got shape {list(value.shape)})."
        )
    for dim, (size, expected) in enumerate(zip(value.shape, sizes, strict=True)):
        if expected is None and size == 0:
            raise ValueError(
                f"'{name}' {shape} must not be empty (got shape {list(value.shape)}, "
                f"dimension {dim} is 0)."
            )
        if expected is not None and size != expected:
            raise ValueError(
                f"'{name}' {shape} must have size {expected} in dimension {dim} "
                f"(got shape {list(value.shape)})."
            )


def check_mask(name: str, value: Any, shape: str, sizes: tuple[int, ...]) -> None:
    """Raise unless ``value`` is a boolean tensor of the given sizes."""
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        came = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"'{name}' must be a boolean tensor (got {came}).")
    check_shape(name, value, shape, sizes)


def check_dtype(name: str, value: Tensor, dtype: torch.dtype | None) -> None:
    """Raise unless ``value`` is of ``dtype``, that of the parameters if they have one, or autocast sees to it."""
    if dtype is None or value.dtype == dtype:
        return
    if not (knows_autocast(value) and torch.is_autocast_enabled(value.device.type)):
        raise TypeError(f"'{name}' must be of the model's dtype {dtype} (got {value.dtype}).")


def knows_autocast(value: Tensor) -> bool:
    """Whether there is an autocast for the device of ``value``, such as not for ``meta``."""
    return value.device.type in AUTOCAST_DEVICES


def runs_ahead(value: Tensor) -> bool:
    """Whether ``value`` is on a device that would have to be waited for to see it."""
    return value.device.type in ASYNC_DEVICES


def largest_factor(dtype: torch.dtype) -> float:
    """The largest number whose products with another, times weights, are sure to be numbers: scores are of 32 bits."""
    wide = torch.double if dtype == torch.double else torch.float
    return float(torch.finfo(wide).max) ** 0.4


def check_finite(name: str, value: Tensor, hint: str = "", *, largest: float | None = None) -> None:
    """Raise if ``value`` holds a NaN, an Inf, or a number beyond ``largest``.

    Skipped where values are not to be looked at, as under compile.

    On a GPU nobody waits for the answer: a value that is not finite fails an assertion of the device, which CUDA
    reports at some later call, and from which the process does not recover.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or value.is_meta:
        return
    if is_transformed():
        return
    if runs_ahead(value):
        torch._assert_async(_within(value, largest).all(), f"'{name}' must be finite.{hint}")
        return
    if bool(_within(value, largest).all()):
        return
    count = int((~torch.isfinite(value)).sum())
    if count > 0:
        raise ValueError(
            f"'{name}' must be finite (got {count} NaN or Inf of {value.numel()} values).{hint}"
        )
    raise ValueError(
        f"'{name}' must be at most {largest:.1e} in size, lest products of two readings overflow "
        f"(got {float(value.abs().max()):.1e}). Scale the readings."
    )


def _within(value: Tensor, largest: float | None) -> Tensor:
    return torch.isfinite(value) if largest is None else value.abs() <= largest  # not so for NaN


def is_transformed() -> bool:
    """Whether a transform of ``torch.func``, or forward-mode differentiation, looks on."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
