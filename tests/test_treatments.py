"""What people do with any PyTorch module: transform it, make it small, put its memory off, compile it."""

from __future__ import annotations

import copy

from tsl_latentgnn.models import LatentForecaster
from tsl_latentgnn.nn import LatentCorrelationGCN

import pytest
import torch
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, vmap
from torch.nn import LSTM, Linear
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


# --------------------------------------------------------------------------- layers that are others


def forecaster(**options):
    """A small model whose scores are all different, and its input."""
    model = LatentForecaster(1, 1, 2, NODES, **{"hidden_size": 8, "k_neighbors": 3, **options})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval(), torch.randn(2, 4, NODES, 1)


REACHES_INTO_LAYERS = [{"dynamic": True}, {"preset": "seq2seq"}]


def rounded(weight):
    """A weight as eight bits keep it: whole steps between its extremes, one scale for all."""
    scale = weight.abs().max() / 127.5
    return (weight / scale).round().clamp(-128, 127) * scale


@pytest.mark.parametrize("options", REACHES_INTO_LAYERS)
@pytest.mark.parametrize("kinds", [{Linear}, {Linear, LSTM}])
def test_a_model_of_eight_bits_is_all_but_the_model(options, kinds):
    """Met in huggingface/transformers#21839, where a model read the weight of a layer that had been replaced."""
    model, x = forecaster(**options)
    small = torch.ao.quantization.quantize_dynamic(model, kinds, dtype=torch.qint8)
    assert not any(type(module) in kinds for module in small.modules())
    with torch.no_grad():
        out = small(x)
        for module in model.modules():
            if isinstance(module, Linear):
                module.weight.copy_(rounded(module.weight))
        torch.testing.assert_close(out, model(x), rtol=0, atol=0.05)


@pytest.mark.parametrize("options", REACHES_INTO_LAYERS)
def test_a_layer_with_a_hook_computes_with_the_weight_that_the_hook_makes(options):
    model, x = forecaster(**options)
    masks = {}
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            prune.random_unstructured(module, "weight", 0.5)
            masks[name] = module.weight_mask.clone()
            with torch.no_grad():  # as an optimizer does: only the hook makes the weight of it
                module.weight_orig.mul_(2.0)
    pruned = model(x)
    pruned.square().sum().backward()
    for name, module in model.named_modules():
        if name in masks:
            assert module.weight_orig.grad is not None, name
            assert (module.weight_orig.grad[masks[name] == 0] == 0).all(), name
            prune.remove(module, "weight")
    torch.testing.assert_close(pruned, model(x))


class Adapted(torch.nn.Module):
    """A layer with a low-rank change beside it, whose ``weight`` is that of the layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.change = layer, torch.nn.Linear(layer.in_features, layer.out_features)
        self.weight = layer.weight

    def forward(self, x):
        return self.layer(x) + self.change(x)


@pytest.mark.parametrize("options", REACHES_INTO_LAYERS)
def test_an_adapter_has_its_say(options):
    model, x = forecaster(**options)
    merged = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear) and name:
            parent, _, leaf = name.rpartition(".")
            adapted = Adapted(module)
            setattr(model.get_submodule(parent), leaf, adapted)
            if module.bias is None:
                torch.nn.init.zeros_(adapted.change.bias)
            with torch.no_grad():
                whole = merged.get_submodule(name)
                whole.weight.add_(adapted.change.weight)
                if whole.bias is not None:
                    whole.bias.add_(adapted.change.bias)
    torch.testing.assert_close(model(x), merged(x))


# --------------------------------------------------------------------- memory that comes later

CANDIDATES = torch.tensor([[1, 2, 3, 4, 0, 2], [0, 0, 1, 2, 3, 4]])
DEFERRED = [
    {},
    {"dynamic": True, "heads": 2, "static": 2, "likelihood": "gaussian"},
    {"preset": "seq2seq", "shared_static": True, "norm": "graph"},
    {"graph_at": "input", "graph_per": "window", "norm": "batch", "k_neighbors": None},
    {"candidates": CANDIDATES, "k_neighbors": 2, "gaussian_smoothing": True},
]


class OnMetaOnly(TorchDispatchMode):
    """No tensor is made anywhere else, as on a device that the CPU's tensors would not fit to."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            assert not isinstance(value, torch.Tensor) or value.is_meta, func
        return out


def deferred(options, how):
    if how == "to":
        return LatentForecaster(1, 1, 2, NODES, **{**SPARSE, **options}).to("meta")
    with torch.device("meta"):
        return LatentForecaster(1, 1, 2, NODES, **{**SPARSE, **options})


@pytest.mark.parametrize("options", DEFERRED)
@pytest.mark.parametrize("how", ["made", "to"])
def test_shapes_are_inferred_without_memory(options, how):
    model = deferred(options, how)
    x = torch.empty(3, 4, NODES, 1, device="meta")
    with OnMetaOnly():
        for mask in (None, torch.ones_like(x, dtype=torch.bool)):
            forecast = model.train().forecast(x, input_mask=mask)
            forecast.mean.square().sum().backward()
            assert forecast.mean.shape == (3, 2, NODES, 1)
            assert forecast.graph[0].to_dense().shape[-2:] == (NODES, NODES)
            assert model.eval()(x, input_mask=mask).shape == (3, 2, NODES, 1)


@pytest.mark.parametrize("options", DEFERRED)
@pytest.mark.parametrize("how", ["made", "to"])
@pytest.mark.parametrize("assign", [False, True])
def test_a_model_whose_memory_came_later_is_the_model(options, how, assign):
    model = LatentForecaster(1, 1, 2, NODES, **{**SPARSE, **options})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    later = deferred(options, how)
    if assign:
        later.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    else:
        later.to_empty(device="cpu").load_state_dict(model.state_dict())
    x = torch.randn(3, 4, NODES, 1)
    for each in (model, later):
        each.train()(x).square().sum().backward()
        assert len(list(each.parameters())) == len(list(model.parameters()))
    for (name, ours), (_, theirs) in zip(
        later.named_parameters(), model.named_parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    torch.testing.assert_close(later.eval()(x), model.eval()(x))


# --------------------------------------------------------------------------------- batches that grow


@pytest.mark.parametrize("options", [{}, {"dynamic": True, "heads": 2}, {"preset": "seq2seq"}])
def test_one_program_serves_batches_of_every_size(options):
    programs = []

    def count(program, _):
        programs.append(program)
        return program

    torch._dynamo.reset()
    model, _ = forecaster(**options)
    with torch._dynamo.config.patch(allow_rnn=True), torch.no_grad():
        compiled = torch.compile(model, dynamic=True, fullgraph=True, backend=count)
        for batch in range(2, 13):
            x = torch.randn(batch, 3, NODES, 1)
            torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=1e-5)
    assert len(programs) <= 2  # for one size, and for all


def test_numbers_too_large_to_be_multiplied_are_refused():
    layer = LatentCorrelationGCN(2, 4, NODES, k_neighbors=3)
    model, x = forecaster(preset="seq2seq")
    for size in (1e19, 1e25, 3e38):
        with pytest.raises(ValueError, match=r"'x' must be at most .* Scale the readings"):
            layer(torch.full((NODES, 2), size))
        with pytest.raises(ValueError, match=r"'x' must be at most .* Scale the readings"):
            model(x / x.abs().max() * size)
    large = torch.randn(NODES, 2) * 1e14
    assert layer(large).isfinite().all()
