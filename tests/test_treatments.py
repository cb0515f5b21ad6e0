"""What people do with any PyTorch module: transform it, make it small, put its memory off, compile it."""

from __future__ import annotations

from tsl_latentgnn.models import LatentForecaster
from tsl_latentgnn.nn import LatentCorrelationGCN

import pytest
import torch
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, vmap

NODES = 5
SPARSE = {"hidden_size": 4, "k_neighbors": 3, "dropout": 0.0}

LAYERS = {
    "dense": {},
    "one head": {"k_neighbors": 3},
    "heads": {"k_neighbors": 3, "heads": 2},
    "low rank": {"k_neighbors": 3, "static": 2},
    "candidates": {
        "k_neighbors": 2,
        "candidates": torch.tensor([[1, 2, 3, 4, 0, 2], [0, 0, 1, 2, 3, 4]]),
    },
}
MODELS = {
    "state": {"dynamic": True},
    "seq2seq": {"preset": "seq2seq", "lstm_layers": 2},
    "window": {"preset": "seq2seq", "graph_per": "window", "norm": "layer", "decoder": "direct"},
}
CASES = [*LAYERS, *MODELS]


def make(case):
    """A module in double precision, whose scores are all different, and its input of three samples."""
    torch.manual_seed(0)
    if case in LAYERS:
        module, x = LatentCorrelationGCN(2, 4, NODES, **LAYERS[case]), torch.randn(3, NODES, 2)
    else:
        module = LatentForecaster(2, 1, 2, NODES, **{**SPARSE, **MODELS[case]})
        x = torch.randn(3, 4, NODES, 2)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.double().eval(), x.double()


def as_functions(module):
    """Output and loss as functions of parameters and input."""
    buffers = dict(module.named_buffers())

    def call(parameters, x):
        return functional_call(module, (parameters, buffers), (x,))

    return call, lambda parameters, x: call(parameters, x).square().sum()


# ------------------------------------------------------------------------------------ torch.func


@pytest.mark.parametrize("case", CASES)
def test_per_sample_gradients_sum_to_the_gradient(case):
    module, x = make(case)
    _, loss = as_functions(module)
    parameters = dict(module.named_parameters())
    module(x).square().sum().backward()
    whole = grad(loss)(parameters, x)
    each = vmap(grad(loss), (None, 0))(parameters, x.unsqueeze(1))
    for name, parameter in parameters.items():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(whole[name], expected)
        torch.testing.assert_close(each[name].sum(0), expected)


@pytest.mark.parametrize("case", CASES)
def test_an_ensemble_of_parameters_gives_what_each_gives(case):
    module, x = make(case)
    call, _ = as_functions(module)
    members = [dict(module.named_parameters()), dict(make(case)[0].named_parameters())]
    members[1] = {name: 1.1 * value for name, value in members[1].items()}
    stacked = {name: torch.stack([member[name] for member in members]) for name in members[0]}
    together = vmap(call, (0, None))(stacked, x)
    for member, out in zip(members, together, strict=True):
        module.load_state_dict({**module.state_dict(), **member})
        torch.testing.assert_close(out, module(x))


@pytest.mark.parametrize("case", CASES)
def test_jacobians_and_hessians_are_those_of_finite_differences(case):
    module, x = make(case)
    x, step = x[:1], 1e-5
    flat = x.flatten()

    def differences(f):
        columns = []
        for unit in torch.eye(flat.numel(), dtype=x.dtype):
            ahead, behind = (f((flat + sign * step * unit).view_as(x)) for sign in (1, -1))
            columns.append((ahead - behind).detach() / (2 * step))
        return torch.stack(columns, -1).flatten(0, -2)

    expected = differences(module)
    for jacobian in (jacrev, jacfwd):
        ours = jacobian(module)(x).reshape(expected.shape)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)
    loss = lambda x: module(x).square().sum()  # noqa: E731
    second = hessian(loss)(x).reshape(flat.numel(), -1)
    torch.testing.assert_close(
        second, differences(grad(loss)).reshape(second.shape), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("case", CASES)
def test_a_gradient_can_be_differentiated_again(case):
    module, x = make(case)
    parameters = dict(module.named_parameters())

    def penalty(x):
        leaf = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(module(leaf).square().sum(), leaf, create_graph=True)
        return slope.square().sum()

    penalty(x).backward()
    loss = as_functions(module)[1]
    expected = grad(lambda p: grad(loss, 1)(p, x).square().sum())(parameters)
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name])
    torch.autograd.gradgradcheck(module, (x[:1].requires_grad_(),), fast_mode=True)
