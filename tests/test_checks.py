import math
from fractions import Fraction

from tsl_latentgnn._checks import (
    check_bool,
    check_choice,
    check_finite,
    check_float,
    check_float_tensor,
    check_int,
    check_shape,
    largest_factor,
)

import numpy as np
import pytest
import torch


@pytest.mark.parametrize("value", [1, 3, np.int64(3), np.uint8(1)])
def test_good_ints(value):
    checked = check_int("size", value, 1, 3)
    assert checked == value
    assert type(checked) is int


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, r"'size' must be an int >= 1 \(got 0\)"),
        (4, ValueError, r"'size' must be an int <= 3 \(got 4\)"),
        (2**63, ValueError, r"'size' must be an int <= 3 \(got 9223372036854775808\)"),
        (2.0, TypeError, r"'size' must be an int \(got 2.0 of type float\)"),
        ("2", TypeError, r"'size' must be an int \(got '2' of type str\)"),
        (True, TypeError, r"'size' must be an int \(got True of type bool\)"),
        (None, TypeError, r"'size' must be an int \(got None of type NoneType\)"),
        (torch.tensor(2), TypeError, "'size' must be an int"),
    ],
)
def test_bad_ints(value, error, message):
    with pytest.raises(error, match=message):
        check_int("size", value, 1, 3)


def test_sizes_that_no_tensor_has():
    assert check_int("size", 2**63 - 1) == 2**63 - 1
    with pytest.raises(ValueError, match=r"'size' must be an int <= 9223372036854775807 \(got 9"):
        check_int("size", 2**63, 1)


def test_a_number_too_small_for_a_float_is_zero():
    with pytest.raises(ValueError, match=r"'rate' must be > 0.0 \(got Fraction"):
        check_float("rate", Fraction(1, 10**400), 0.0, exclusive_minimum=True)


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.5), Fraction(1, 2)])
def test_good_floats(value):
    checked = check_float("rate", value, 0.0, 1.0)
    assert checked == value
    assert type(checked) is float


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-0.1, ValueError, r"'rate' must be a number >= 0.0 \(got -0.1\)"),
        (1.1, ValueError, r"'rate' must be a number <= 1.0 \(got 1.1\)"),
        (math.nan, ValueError, r"'rate' must be finite \(got nan\)"),
        (math.inf, ValueError, r"'rate' must be finite \(got inf\)"),
        (10**400, ValueError, r"'rate' must be finite \(got 10{400}\)"),
        ("0.5", TypeError, r"'rate' must be a number \(got '0.5' of type str\)"),
        (False, TypeError, r"'rate' must be a number \(got False of type bool\)"),
        (None, TypeError, r"'rate' must be a number \(got None of type NoneType\)"),
        (1j, TypeError, "'rate' must be a number"),
    ],
)
def test_bad_floats(value, error, message):
    with pytest.raises(error, match=message):
        check_float("rate", value, 0.0, 1.0)


def test_exclusive_minimum():
    assert check_float("rate", 1e-300, 0.0, exclusive_minimum=True) == 1e-300
    with pytest.raises(ValueError, match=r"'rate' must be > 0.0 \(got 0\)"):
        check_float("rate", 0, 0.0, exclusive_minimum=True)


def test_bools_and_choices():
    assert check_bool("flag", True) is True
    assert check_bool("flag", False) is False
    for value in (0, 1, None, "True", np.bool_(True)):
        with pytest.raises(TypeError, match="'flag' must be a bool"):
            check_bool("flag", value)
    assert check_choice("norm", None, (None, "layer")) is None
    assert check_choice("norm", "layer", (None, "layer")) == "layer"
    with pytest.raises(ValueError, match=r"'norm' must be one of \[None, 'layer'\] \(got 'x'\)"):
        check_choice("norm", "x", (None, "layer"))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.float, torch.double])
def test_good_tensors(dtype):
    x = torch.ones(2, 5, 3, dtype=dtype)
    assert check_float_tensor("x", x, "[B, T, F]", (None, None, 3)) is x


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.ones((2, 3)), TypeError, r"'x' must be a torch.Tensor \[B, F\] \(got ndarray\)"),
        (None, TypeError, r"'x' must be a torch.Tensor \[B, F\] \(got NoneType\)"),
        (torch.ones(2, 3).bool(), TypeError, r"floating point tensor \(got torch.bool\)"),
        (torch.ones(3), ValueError, r"must have 2 dimensions \[B, F\] \(got shape \[3\]\)"),
        (torch.ones(2, 4), ValueError, r"size 3 in dimension 1 \(got shape \[2, 4\]\)"),
        (torch.ones(0, 3), ValueError, r"must not be empty \(got shape \[0, 3\], dimension 0 is 0"),
    ],
)
def test_bad_tensors(value, error, message):
    with pytest.raises(error, match=message):
        check_float_tensor("x", value, "[B, F]", (None, 3))


def test_a_size_of_zero_may_be_expected():
    x = torch.ones(2, 0)
    check_shape("x", x, "[B, F]", (2, 0))
    with pytest.raises(ValueError, match=r"'x' .* size 0 in dimension 1"):
        check_shape("x", torch.ones(2, 1), "[B, F]", (2, 0))


def test_finite():
    check_finite("x", torch.tensor([1.0, -1e30]))
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=r"'x' must be finite \(got 2 NaN or Inf of 3 values"):
            check_finite("x", torch.tensor([bad, 1.0, bad]))


def test_what_is_too_large_to_be_squared():
    for dtype, largest in ((torch.float, 2.6e15), (torch.bfloat16, 2.6e15), (torch.double, 2e123)):
        limit = largest_factor(dtype)
        assert limit == pytest.approx(largest, rel=0.1)
        assert (
            limit**2.4
            < torch.finfo(max(dtype, torch.float, key=lambda kind: torch.finfo(kind).bits)).max
        )
        check_finite("x", torch.tensor([-limit, limit], dtype=dtype) / 2, largest=limit)
        with pytest.raises(ValueError, match=r"'x' must be at most .* \(got .*e\+\d+\)\. Scale"):
            check_finite("x", torch.tensor([0, -2 * limit], dtype=dtype), largest=limit)
        with pytest.raises(ValueError, match=r"'x' must be finite \(got 1 NaN or Inf of 2"):
            check_finite("x", torch.tensor([math.nan, limit], dtype=dtype), largest=limit)
    assert largest_factor(torch.half) > torch.finfo(torch.half).max


def test_finite_is_skipped_where_values_are_not_at_hand():
    def function(x):
        check_finite("x", x)
        return x + 1

    x = torch.tensor([math.nan, 1.0])
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    assert compiled(x).isnan().tolist() == [True, False]
    assert function(x.to("meta")).is_meta
    with pytest.raises(ValueError, match="'x' must be finite"):
        function(x)
