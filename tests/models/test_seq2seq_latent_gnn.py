import copy
import math
import pickle

from tsl_latentgnn.models import Seq2SeqLatentGNN
from tsl_latentgnn.nn import (
    AttendingDecoder,
    ConvSmoother,
    CustomFourierLayer,
    GaussianSmoothingLayer,
    LatentCorrelationGCN,
    LSTMEncoder,
)

import pytest
import torch
from marks import needs_compiler
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


@pytest.fixture(autouse=True)
def compile_anew():
    """No compiled code, nor what sizes were seen, is carried over from one test to the next."""
    torch.compiler.reset()


def make(seed=0, **options):
    """A small model with random parameters."""
    torch.manual_seed(seed)
    options = {"k_neighbors": 3, "modes": (2, 2), **options}
    model = Seq2SeqLatentGNN(2, 8, 5, 4, **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


# Node 3 may hear itself alone, and node 4 nobody but itself where that is always so.
EDGES = torch.tensor([[1, 2, 0, 3, 4, 0, 3, 0], [0, 0, 1, 1, 1, 2, 3, 1]])


def window(batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 6, 5, 2, generator=generator)


def test_documented_forecast():
    B, T_in, T_out, N, F = 8, 24, 12, 20, 3
    x = torch.randn(B, T_in, N, F)
    model = Seq2SeqLatentGNN(
        node_input_dim=F,
        hidden_dim=64,
        num_nodes=N,
        out_seq_len=T_out,
        k_neighbors=4,
        teacher_forcing_ratio=0.5,
    )
    with torch.no_grad():
        y_pred, A = model(x, teacher_forcing=False)
    assert y_pred.shape == (B, T_out, N)
    assert A.shape == (B, N, N)
    torch.testing.assert_close(A.sum(-1), torch.ones(B, N))
    assert ((A > 0).sum(-1) == 4).all(), "4 sources of every target"
    assert (A.diagonal(0, 1, 2) > 0).all(), "the self edge is one of them"


def test_documented_training_metrics_and_plot():
    from tsl_latentgnn.evaluation import metrics
    from tsl_latentgnn.visualization import plot_attention

    from matplotlib import pyplot as plt

    B, T_in, T_out, N, F = 4, 12, 6, 8, 3
    torch.manual_seed(0)
    inputs, targets = torch.randn(16, T_in, N, F), torch.randn(16, T_out, N) * 0.1 + 3.0
    train_loader = DataLoader(TensorDataset(inputs, targets), batch_size=B)

    model = Seq2SeqLatentGNN(F, 64, N, out_seq_len=T_out, k_neighbors=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=1e-4)
    criterion = nn.L1Loss()
    losses = []
    for _epoch in range(8):
        model.train()
        for x, y in train_loader:
            y_hat, _ = model(x, targets=y, teacher_forcing=True)
            loss = criterion(y_hat, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]

    model.eval()
    with torch.no_grad():
        y_pred, A = model(inputs, teacher_forcing=False)
    scores = metrics(targets, y_pred, eps=1e-8)
    assert set(scores) == {"MSE", "RMSE", "MAE", "MAPE"}
    assert float(scores["MAE"]) == pytest.approx((targets - y_pred).abs().mean().item(), rel=1e-5)
    plot_attention(A, title="Latent adjacency")
    plt.close("all")


def test_its_parts_are_those_of_the_documentation():
    model = Seq2SeqLatentGNN(3, 64, 20, 12)
    modules = list(model.modules())
    count = {cls: sum(isinstance(m, cls) for m in modules) for cls in (CustomFourierLayer,)}
    count |= {
        cls: sum(isinstance(m, cls) for m in modules)
        for cls in (LatentCorrelationGCN, LSTMEncoder, AttendingDecoder)
    }
    assert count == {
        CustomFourierLayer: 1,
        LatentCorrelationGCN: 2,
        LSTMEncoder: 1,
        AttendingDecoder: 1,
    }
    assert [m.num_layers for m in modules if isinstance(m, nn.LSTM)] == [2, 2]
    assert [type(m) for m in model.network.smoothers] == [ConvSmoother, GaussianSmoothingLayer]
    assert all(m.k_neighbors == 4 for m in modules if isinstance(m, LatentCorrelationGCN))
    assert model.teacher_forcing_ratio == 0.5
    assert str(model) == "Seq2SeqLatentGNN(3, 64, num_nodes=20, out_seq_len=12)"


@pytest.mark.parametrize("k", [None, 1, 3, 5])
def test_attention_is_the_graph_of_the_last_step(k):
    model, x = make(k_neighbors=k), window()
    pred, attn = model(x)
    graph = model.latent_graph(x)
    assert graph.batch_shape == (3, 6)
    assert torch.equal(attn, graph[:, -1].to_dense())
    torch.testing.assert_close(attn.sum(-1), torch.ones(3, 5))
    assert ((attn > 0).sum(-1) == (k or 5)).all()
    assert pred.shape == (3, 4, 5)
    # It is the attention of the last layer, on what the layer before has made of the last step.
    seen = []
    last = model.network.graph_encoder.convs[-1]
    handle = last.lin_value.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    model(x)
    handle.remove()
    again = last.learner(seen[0]).graph((18,)).to_dense().view(6, 3, 5, 5)
    torch.testing.assert_close(attn, again[-1])


@pytest.mark.parametrize("k", [None, 1, 3, 5])
def test_attention_is_the_graph_of_the_window(k):
    model, x = make(k_neighbors=k, graph_per="window"), window()
    pred, attn = model(x)
    graph = model.latent_graph(x)
    assert graph.batch_shape == (3,)
    assert attn.shape == (3, 5, 5)
    assert torch.equal(attn, graph.to_dense())
    torch.testing.assert_close(attn.sum(-1), torch.ones(3, 5))
    assert ((attn > 0).sum(-1) == (k or 5)).all()
    assert pred.shape == (3, 4, 5)
    # It is the attention of the last layer on the mean of what the layer before has made of the steps.
    seen = []
    last = model.network.graph_encoder.convs[-1]
    handle = last.lin_value.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    model(x)
    handle.remove()
    means = torch.stack([sum(steps) / 6 for steps in seen[0].view(3, 6, 5, 8)])
    again = last.learner(means).graph((3,)).to_dense()
    torch.testing.assert_close(attn, again)


def test_graph_of_each_layer():
    model, x = make(latent_layers=3), window()
    convs = model.network.graph_encoder.convs
    seen = []
    for conv in convs:
        conv.lin_value.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    model(x)
    inputs = list(seen)
    for layer, conv in enumerate(convs):
        graph = model.latent_graph(x, layer=layer)
        expected = (
            conv.learner(inputs[layer]).graph((18,)).to_dense().view(6, 3, 5, 5).transpose(0, 1)
        )
        torch.testing.assert_close(graph.to_dense(), expected)
        assert torch.equal(model.latent_graph(x, layer=layer - 3).weights, graph.weights)
    assert torch.equal(model.latent_graph(x).weights, graph.weights)


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (2, ValueError, r"'layer' must be an int <= 1 \(got 2\)"),
        (-3, ValueError, r"'layer' must be an int >= -2 \(got -3\)"),
        (None, TypeError, "'layer' must be an int"),
    ],
)
def test_there_must_be_such_a_layer(layer, error, message):
    with pytest.raises(error, match=message):
        make().latent_graph(window(), layer=layer)


@pytest.mark.parametrize("graph_per", ["step", "window"])
@pytest.mark.parametrize("k", [None, 1, 4])
def test_attention_is_on_candidates_alone(graph_per, k):
    model, x = make(k_neighbors=k, graph_per=graph_per, candidates=EDGES), window()
    pred, attn = model(x)
    assert pred.shape == (3, 4, 5)
    assert attn.shape == (3, 5, 5)
    torch.testing.assert_close(attn.sum(-1), torch.ones(3, 5))
    allowed = torch.eye(5, dtype=torch.bool)
    allowed[EDGES[1], EDGES[0]] = True
    assert attn[:, ~allowed].abs().sum() == 0
    expected = allowed.sum(-1).clamp(max=k or 5).expand(3, -1)
    assert torch.equal((attn > 0).sum(-1), expected)
    graph = model.latent_graph(x)
    assert graph.batch_shape == ((3,) if graph_per == "window" else (3, 6))
    assert graph.k_neighbors == (k or 4)
    # Without a self loop a node may be left without any source.
    attn = make(add_self_loops=False, graph_per=graph_per, candidates=EDGES)(x)[1]
    torch.testing.assert_close(attn.sum(-1), torch.tensor([1.0] * 4 + [0.0]).expand(3, -1))


@pytest.mark.parametrize("graph_per", ["step", "window"])
def test_all_nodes_as_candidates_are_as_without(graph_per):
    everyone = torch.arange(5).repeat(5, 1)
    model = make(static=2, graph_per=graph_per).double()
    restricted = make(static=2, graph_per=graph_per, candidates=everyone).double()
    restricted.load_state_dict(model.state_dict(), strict=False)
    x = window().double()
    for one, other in zip(restricted(x), model(x), strict=True):
        torch.testing.assert_close(one, other)


def test_a_window_of_one_step_has_one_graph():
    one, other = make(graph_per="window").double(), make().double()
    x = window()[:, :1].double()
    for a, b in zip(one(x), other(x), strict=True):
        torch.testing.assert_close(a, b)


def test_teacher_forcing():
    model, x = make(teacher_forcing_ratio=1.0), window()
    targets = torch.randn(3, 4, 5)
    free, _ = model(x)
    assert torch.equal(model(x, targets=targets)[0], free)
    assert torch.equal(model(x, targets, False)[0], free)
    forced, attn = model(x, targets=targets, teacher_forcing=True)
    assert not torch.allclose(forced, free)
    assert torch.equal(attn, model(x)[1])
    # Forced with its own outputs before the smoothing, it forecasts what it does by itself.
    model.network.smoothers = nn.Sequential()
    own, _ = model(x)
    torch.testing.assert_close(model(x, targets=own.detach(), teacher_forcing=True)[0], own)

    never = make(teacher_forcing_ratio=0.0)
    assert torch.equal(never(x, targets, True)[0], free)


def test_the_first_feature_starts_the_decoder():
    model, x = make(k_neighbors=1, modes=None), window()
    with torch.no_grad():
        model.network.input_encoder.weight.zero_()
    expected, _ = model(x)
    x[..., 1] += 1.0
    x[:, :-1] += 1.0
    assert torch.equal(model(x)[0], expected)
    x[:, -1, :, 0] += 1.0
    assert not torch.allclose(model(x)[0], expected)


def test_it_learns_sines_to_near_zero_loss():
    torch.manual_seed(0)
    model = Seq2SeqLatentGNN(1, 24, 6, 4, k_neighbors=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def sines(batch):
        steps = torch.arange(12.0).view(1, -1, 1) + torch.rand(batch, 1, 1) * 100
        series = torch.sin(0.5 * steps + torch.arange(6.0))
        return series[:, :8].unsqueeze(-1), series[:, 8:]

    for _ in range(150):
        x, y = sines(48)
        loss = nn.functional.mse_loss(model(x, y, teacher_forcing=True)[0], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, y = sines(200)
    with torch.no_grad():
        error = nn.functional.mse_loss(model(x)[0], y).item()
    assert error < 0.02 * y.var().item()


@pytest.mark.parametrize(
    "options",
    [
        {"k_neighbors": None},
        {"k_neighbors": 3},
        {"k_neighbors": 3, "graph_per": "window"},
        {
            "k_neighbors": 2,
            "candidates": torch.tensor(
                [[*range(6)] * 3, [1, 2, 3, 4, 5, 0] * 2 + [2, 3, 4, 5, 0, 1]]
            ),
        },
    ],
    ids=["dense", "sparse", "window", "candidates"],
)
def test_it_finds_the_graph_of_the_data(options):
    """The future of a node is the past of the node before it: only messages can carry it over."""
    torch.manual_seed(0)
    model = Seq2SeqLatentGNN(
        1, 24, 6, 3, **options, modes=None, gaussian_smoothing=False, latent_layers=1, lstm_layers=1
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        x = torch.randn(64, 4, 6, 1)
        y = x[:, 1:, :, 0].roll(1, -1)
        loss = nn.functional.mse_loss(model(x)[0], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        pred, attn = model(x)
    assert nn.functional.mse_loss(pred, y) < 0.05
    assert torch.equal(attn.mean(0).argmax(-1), torch.arange(6).roll(1))


def test_gaussian_head_matches_scipy():
    model, x = make(likelihood="gaussian"), window()
    with torch.no_grad():
        normal = model.distribution(x)
        assert torch.equal(normal.loc, model(x)[0])
    assert normal.scale.shape == (3, 4, 5)
    assert (normal.scale > 0).all()
    loc, scale = normal.loc.double().numpy(), normal.scale.double().numpy()
    y = torch.randn(3, 4, 5)
    expected = torch.as_tensor(stats.norm.logpdf(y.numpy(), loc, scale))
    torch.testing.assert_close(normal.log_prob(y).double(), expected, rtol=1e-4, atol=1e-4)
    for level in (0.05, 0.5, 0.9):
        expected = torch.as_tensor(stats.norm.ppf(level, loc, scale))
        quantile = normal.icdf(torch.tensor(level)).double()
        torch.testing.assert_close(quantile, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="'likelihood' must be 'gaussian'"):
        make().distribution(x)


def test_gaussian_head_learns_the_spread():
    torch.manual_seed(0)
    model = Seq2SeqLatentGNN(1, 32, 3, 2, k_neighbors=1, modes=None, likelihood="gaussian")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    sigma = torch.tensor([0.2, 1.0, 3.0])
    for _ in range(150):
        x = sigma.view(1, 1, 3, 1).expand(64, 4, 3, 1)
        loss = -model.distribution(x).log_prob(sigma * torch.randn(64, 2, 3)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scale = model.distribution(x).scale
    torch.testing.assert_close(scale.mean((0, 1)), sigma, rtol=0.2, atol=0.0)


@pytest.mark.parametrize("options", [{}, {"graph_per": "window", "candidates": EDGES}])
def test_compile_in_one_graph(options):
    model, x = make(**options), window()
    # Dynamo leaves out recurrent layers by default.
    with torch._dynamo.config.patch(allow_rnn=True), torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        for one, other in zip(compiled(x), model(x), strict=True):
            torch.testing.assert_close(one, other)


def test_compile_for_training():
    model, x = make(), window()
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager")
    pred, attn = model(x)
    compiled_pred, compiled_attn = compiled(x)
    torch.testing.assert_close(compiled_pred, pred)
    torch.testing.assert_close(compiled_attn, attn)
    pred.square().sum().backward()
    compiled_pred.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for name, parameter in compiled._orig_mod.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@needs_compiler
def test_compile_by_the_default_backend():
    # The smallest of models, for every kernel takes the compiler seconds.
    model = Seq2SeqLatentGNN(
        2,
        8,
        5,
        1,
        3,
        modes=None,
        latent_layers=1,
        lstm_layers=1,
        conv_smoothing=False,
        gaussian_smoothing=False,
    )
    x = window()
    with torch.no_grad():
        compiled = torch.compile(model)
        for one, other in zip(compiled(x), model(x), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "graph"},
        {"k_neighbors": None, "heads": 2},
        {"k_neighbors": None, "graph_per": "window", "candidates": EDGES},
    ],
)
def test_autocast(options):
    torch.manual_seed(0)
    model = Seq2SeqLatentGNN(2, 16, 5, 4, **options)
    x, y = window(), torch.randn(3, 4, 5)
    pred, attn = model(x)
    nn.functional.mse_loss(pred, y).backward()
    exact = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, half_attn = model(x)
        loss = nn.functional.mse_loss(half.float(), y)
    loss.backward()
    torch.testing.assert_close(half.float(), pred, rtol=0.05, atol=0.02)
    if options.get("k_neighbors", 4) is None:
        torch.testing.assert_close(half_attn.float(), attn, rtol=0.05, atol=0.02)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    exact = torch.cat([g.flatten() for g in exact])
    assert torch.cosine_similarity(gradient, exact, dim=0) > 0.99


def test_state_dict_round_trip(tmp_path):
    model, x = make(seed=0, norm="batch"), window()
    model(x)  # moves the running statistics
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = make(seed=1, norm="batch")
    model.eval()
    other.eval()
    assert not torch.allclose(other(x)[0], model(x)[0])
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for one, two in zip(other(x), model(x), strict=True):
        assert torch.equal(one, two)


def test_candidates_in_a_state_dict(tmp_path):
    model, x = make(seed=0, candidates=EDGES, graph_per="window"), window()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    other = make(seed=1, candidates=(EDGES + 1) % 5, graph_per="window")
    assert not torch.allclose(other(x)[0], model(x)[0])
    other.load_state_dict(state)
    for one, two in zip(other(x), model(x), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*candidates"):
        make(static=2).load_state_dict(state)
    # Double precision reaches the weights, not the candidates.
    twin = model.double()
    tables = [table for name, table in twin.named_buffers() if name.endswith("candidates")]
    assert [table.dtype for table in tables] == [torch.long] * 2
    assert twin(x.double())[0].dtype == torch.double


@pytest.mark.parametrize("options", [{}, {"graph_per": "window", "candidates": EDGES}])
def test_pickle_and_deepcopy(options):
    model, x = make(**options), window()
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(twin(x)[0], model(x)[0])
        with torch.no_grad():
            next(twin.parameters()).add_(1.0)
        assert not torch.equal(twin(x)[0], model(x)[0])


def test_a_seed_determines_training():
    def train():
        torch.manual_seed(5)
        model = Seq2SeqLatentGNN(2, 8, 5, 4, dropout=0.2)
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(3):
            loss = model(window(), torch.ones(3, 4, 5), teacher_forcing=True)[0].square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.state_dict()

    one, other = train(), train()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_reset_parameters_draws_anew():
    model, x = make(), window()
    before = model(x)[0]
    model.reset_parameters()
    assert not torch.allclose(model(x)[0], before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"node_input_dim": 0}, ValueError, "'node_input_dim' must be an int >= 1"),
        ({"hidden_dim": 0}, ValueError, "'hidden_dim' must be an int >= 1"),
        ({"hidden_dim": 8.0}, TypeError, "'hidden_dim' must be an int"),
        ({"num_nodes": 0}, ValueError, "'num_nodes' must be an int >= 1"),
        ({"out_seq_len": 0}, ValueError, "'out_seq_len' must be an int >= 1"),
        ({"k_neighbors": 0}, ValueError, "'k_neighbors' must be an int >= 1"),
        ({"k_neighbors": 6}, ValueError, "'k_neighbors' must be an int <= 5"),
        ({"teacher_forcing_ratio": 1.1}, ValueError, "'teacher_forcing_ratio' .* <= 1"),
        ({"teacher_forcing_ratio": -0.1}, ValueError, "'teacher_forcing_ratio' .* >= 0"),
        ({"teacher_forcing_ratio": None}, TypeError, "'teacher_forcing_ratio' must be a number"),
        ({"temperature": 0}, ValueError, "'temperature' must be a number >= 1e-06"),
        ({"heads": 3}, ValueError, "'heads' must divide"),
        ({"modes": (0, 1)}, ValueError, "'modes1' must be an int >= 1"),
        ({"norm": "none"}, ValueError, "'norm' must be one of"),
        ({"likelihood": "normal"}, ValueError, "'likelihood' must be one of"),
        ({"exog_size": 1}, TypeError, "multiple values for keyword argument 'exog_size'"),
        ({"preset": "fast"}, ValueError, "'preset' must be one of .*'seq2seq', 'state'"),
        ({"k_neighbours": 3}, TypeError, "unexpected keyword argument 'k_neighbours'"),
        ({"lstm_layers": 0}, ValueError, "'lstm_layers' must be an int >= 1"),
        ({"graph_per": "sample"}, ValueError, "'graph_per' must be one of .*'sample'"),
        ({"candidates": EDGES.tolist()}, TypeError, "'candidates' must be a torch.long .* list"),
        ({"candidates": EDGES + 1}, ValueError, "'candidates' must hold nodes from 0 to 4"),
        ({"candidates": EDGES[:, :2]}, ValueError, "'k_neighbors' must be at most .* 3 .got 4"),
    ],
)
def test_bad_arguments(options, error, message):
    sizes = {"node_input_dim": 2, "hidden_dim": 8, "num_nodes": 5, "out_seq_len": 4}
    with pytest.raises(error, match=message):
        Seq2SeqLatentGNN(**{**sizes, **options})


X, Y = torch.ones(3, 6, 5, 2), torch.ones(3, 4, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"node_features": X.tolist()}, TypeError, "'node_features' must be a torch.Tensor"),
        ({"node_features": X.int()}, TypeError, "'node_features' must be a floating point"),
        ({"node_features": X.double()}, TypeError, "'node_features' .* dtype torch.float32"),
        ({"node_features": X[0]}, ValueError, "'node_features' must have 4 dimensions"),
        ({"node_features": X[:0]}, ValueError, "'node_features' .* must not be empty"),
        ({"node_features": X[:, :0]}, ValueError, "'node_features' .* must not be empty"),
        ({"node_features": X[:, :, :3]}, ValueError, "'node_features' .* size 5 in dimension 2"),
        ({"node_features": X[..., :1]}, ValueError, "'node_features' .* size 2 in dimension 3"),
        ({"node_features": X * math.nan}, ValueError, "'node_features' must be finite"),
        ({"node_features": X * math.inf}, ValueError, "'node_features' must be finite"),
        ({"teacher_forcing": True}, ValueError, "'targets' must be given"),
        ({"teacher_forcing": 1, "targets": Y}, TypeError, "'teacher_forcing' must be a bool"),
        ({"targets": Y.tolist()}, TypeError, "'targets' must be a torch.Tensor"),
        ({"targets": Y.long()}, TypeError, "'targets' must be a floating point"),
        ({"targets": Y[:2]}, ValueError, "'targets' .* size 3 in dimension 0"),
        ({"targets": Y[:, :3]}, ValueError, "'targets' .* size 4 in dimension 1"),
        ({"targets": Y[..., None]}, ValueError, "'targets' must have 3 dimensions"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        make()(**{"node_features": X, **arguments})


def test_compiled_it_does_not_look_for_nan():
    compiled = torch.compile(make(latent_layers=1, modes=None), backend="eager")
    with torch.no_grad():
        assert compiled(X * math.nan)[0].isnan().all()
