import copy
import math
import pickle
from argparse import ArgumentParser

from tsl_latentgnn.models import LatentGNNModel, Seq2SeqLatentGNN

import pytest
import torch
from references import small_preset

pytestmark = pytest.mark.tsl

NAN = math.nan


def make(seed=0, **options):
    """A small model with random parameters."""
    torch.manual_seed(seed)
    sizes = {"input_size": 2, "output_size": 1, "horizon": 3, "n_nodes": 5, "preset": "seq2seq"}
    model = LatentGNNModel(**{**sizes, "hidden_size": 8, "k_neighbors": 3, **options})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


# Node 3 may hear itself alone, and node 4 nobody but itself where that is always so.
EDGES = torch.tensor([[1, 2, 0, 3, 4, 0, 3, 0], [0, 0, 1, 1, 1, 2, 3, 1]])
X = torch.randn(4, 6, 5, 2, generator=torch.Generator().manual_seed(0))


def test_presets():
    state, seq2seq = (LatentGNNModel(2, 1, 3, 5, preset=preset) for preset in ("state", "seq2seq"))
    names = [{n for n, _ in m.named_parameters()} for m in (LatentGNNModel(2, 1, 3, 5), state)]
    assert names[0] == names[1]
    assert {n for n, _ in seq2seq.named_parameters()} != names[0]
    assert state.graph_encoder.convs[0].k_neighbors == 5  # there are no eight
    # What is given wins over the preset, even where it is what another preset says.
    one = LatentGNNModel(2, 1, 3, 5, preset="seq2seq", lstm_layers=1)
    assert (one.temporal_encoder.lstm.num_layers, one.decoder_type) == (1, "attention")
    with pytest.raises(ValueError, match="'k_neighbors' must be an int <= 5"):
        LatentGNNModel(2, 1, 3, 5, k_neighbors=8)
    with pytest.raises(ValueError, match="'preset' must be one of"):
        LatentGNNModel(2, 1, 3, 5, preset="fast")
    with pytest.raises(TypeError, match="multiple values for argument 'horizon'"):
        LatentGNNModel(2, 1, 3, 5, horizon=99)


def test_arguments_by_their_names_of_0_1():
    with pytest.warns(
        DeprecationWarning, match=r"'LatentGNNModel\(head=\)' is 'likelihood='"
    ) as old:
        model = make(head="gaussian")
    assert [w.filename for w in old] == [__file__]
    assert model.likelihood == "gaussian"
    with pytest.warns(DeprecationWarning, match="'LatentGNNModel.head' is 'likelihood'"):
        assert model.head == "gaussian"
    with pytest.warns(DeprecationWarning, match="'LatentGNNModel.network' is 'LatentGNNModel'"):
        assert model.network is model
    with pytest.raises(TypeError, match="'likelihood' must not be given twice"):
        make(head="gaussian", likelihood="gaussian")
    arguments = {"n_nodes": 5, "head": "gaussian", "window": 3}
    with pytest.warns(DeprecationWarning, match="head="):
        LatentGNNModel.filter_model_args_(arguments)
    assert arguments == {"n_nodes": 5, "likelihood": "gaussian"}


def test_weights_of_0_1_into_other_defaults_are_warned_of():
    model = make(preset="state")
    old = {f"network.{name}": value for name, value in model.state_dict().items()}
    with pytest.warns(UserWarning, match="preset='seq2seq'"):
        model.load_state_dict(old)


def test_it_is_a_tsl_model():
    from tsl.nn.models import BaseModel

    model = make()
    assert isinstance(model, BaseModel)
    assert model.return_type is torch.Tensor
    expected = ["x", "u", "input_mask", "u_future", "targets", "teacher_forcing_ratio"]
    assert list(model.forward_signature) == expected
    assert not model.has_forward_kwargs
    assert torch.equal(model.predict(X), model(X))


@pytest.mark.parametrize(
    "options", [{}, {"graph_per": "window"}, {"graph_per": "window", "candidates": EDGES}]
)
def test_one_network_two_faces(options):
    model = make(k_neighbors=4, hidden_size=16, **options)
    plain = Seq2SeqLatentGNN(2, 16, 5, 3, **options)
    plain.network.load_state_dict(model.state_dict())
    pred, attn = plain(X)
    torch.testing.assert_close(model(X).squeeze(-1), pred)
    graph = model.latent_graph(X)
    graph = graph if options else graph[:, -1]
    torch.testing.assert_close(graph.to_dense(), attn)
    first, same = model.latent_graph(X, layer=0), plain.latent_graph(X, layer=0)
    torch.testing.assert_close(first.to_dense(), same.to_dense())


def test_filter_model_args_keeps_what_the_constructor_takes():
    arguments = {
        "n_nodes": 5,
        "input_size": 2,
        "output_size": 1,
        "horizon": 3,
        "window": 12,
        "exog_size": 2,
        "connectivity": None,
    }
    LatentGNNModel.filter_model_args_(arguments)
    assert arguments == {
        "n_nodes": 5,
        "input_size": 2,
        "output_size": 1,
        "horizon": 3,
        "exog_size": 2,
    }
    assert LatentGNNModel(**arguments)(X, torch.randn(4, 6, 2)).shape == (4, 3, 5, 1)


@pytest.mark.parametrize("channels", [(1, 1), (2, 1), (3, 2), (3, 3)])
@pytest.mark.parametrize("decoder", ["attention", "direct"])
@pytest.mark.parametrize(
    ("where", "batch_shape"),
    [({}, (4, 6)), ({"graph_at": "state"}, (4,)), ({"graph_per": "window"}, (4,))],
)
@pytest.mark.parametrize("candidates", [None, EDGES])
def test_channels(channels, decoder, where, batch_shape, candidates):
    model = make(
        input_size=channels[0],
        output_size=channels[1],
        decoder=decoder,
        candidates=candidates,
        **where,
    )
    x = torch.randn(4, 6, 5, channels[0])
    assert model(x).shape == (4, 3, 5, channels[1])
    graph = model.latent_graph(x)
    assert graph.batch_shape == batch_shape
    torch.testing.assert_close(graph.weights.sum(-1), torch.ones(*graph.batch_shape, 5))


@pytest.mark.parametrize("decoder", ["attention", "direct"])
def test_covariates_of_all_nodes_are_those_of_each(decoder):
    model = make(exog_size=2, future_exog_size=3, decoder=decoder)
    u, u_future = torch.randn(4, 6, 2), torch.randn(4, 3, 3)
    expected = model(X, u, u_future=u_future)
    u_nodes = torch.stack([u] * 5, 2)
    future_nodes = torch.stack([u_future] * 5, 2)
    assert torch.equal(model(X, u_nodes, u_future=future_nodes), expected)
    u_nodes[:, :, 2] += 1.0
    assert not torch.allclose(model(X, u_nodes, u_future=future_nodes), expected)
    # A covariate of a future step reaches one node, from that step on or at that step alone.
    future_nodes[:, 1, 2] += 1.0
    changed = model(X, u, u_future=future_nodes)
    others = [0, 1, 3, 4]
    torch.testing.assert_close(changed[:, :, others], expected[:, :, others])
    assert not torch.allclose(changed[:, :, 2], expected[:, :, 2])


@pytest.mark.parametrize(
    "options", [{}, {"graph_per": "window"}, {"graph_per": "window", "candidates": EDGES}]
)
def test_forms_of_the_input_mask(options):
    model = make(**options)
    mask = torch.rand(4, 6, 5, 1, generator=torch.Generator().manual_seed(0)) > 0.3
    expected = model(X, input_mask=mask)
    assert not torch.allclose(expected, model(X))
    assert torch.equal(model(X, input_mask=mask.expand(-1, -1, -1, 2)), expected)
    assert torch.equal(model(X, input_mask=mask.to(torch.uint8)), expected)
    assert torch.equal(model(X, input_mask=mask.float()), expected)
    assert torch.equal(model(X.masked_fill(~mask, NAN), input_mask=mask), expected)

    # Each channel for itself: the first is missing where the second is there.
    single = torch.ones(4, 6, 5, 2, dtype=torch.bool)
    single[..., 0] = mask[..., 0]
    hidden = X.clone()
    hidden[..., 0] = hidden[..., 0].masked_fill(~mask[..., 0], NAN)
    assert torch.equal(model(hidden, input_mask=single), model(X, input_mask=single))
    assert not torch.allclose(model(X, input_mask=single), expected)


def test_teacher_forcing():
    model = make()
    targets = torch.randn(4, 3, 5, 1)
    assert torch.equal(model(X, targets=targets), model(X))
    forced = model(X, targets=targets, teacher_forcing_ratio=1.0)
    assert not torch.allclose(forced, model(X))
    unknown = torch.full_like(targets, NAN)
    assert torch.equal(model(X, targets=unknown, teacher_forcing_ratio=1.0), model(X))


def test_gaussian_head():
    model = make(likelihood="gaussian", exog_size=1, future_exog_size=1)
    inputs = {"u": torch.randn(4, 6, 1), "u_future": torch.randn(4, 3, 1)}
    normal = model.distribution(X, **inputs)
    assert model.likelihood == "gaussian"
    assert torch.equal(normal.loc, model(X, **inputs))
    assert normal.scale.shape == (4, 3, 5, 1)
    assert (normal.scale > 0).all()
    assert make().likelihood is None
    with pytest.raises(ValueError, match="'likelihood' must be 'gaussian'"):
        make().distribution(X)


def test_the_connectivity_of_a_dataset_as_candidates():
    # tsl gives edges and their weights; the edges are what may be a source of what.
    arguments = {
        "n_nodes": 5,
        "input_size": 2,
        "output_size": 1,
        "horizon": 3,
        "window": 6,
        "candidates": EDGES,
        "graph_per": "window",
        "k_neighbors": 4,
    }
    LatentGNNModel.filter_model_args_(arguments)
    assert arguments["candidates"] is EDGES
    assert arguments["graph_per"] == "window"
    model = LatentGNNModel(**arguments)
    mask = torch.rand(4, 6, 5, 1, generator=torch.Generator().manual_seed(0)) > 0.3
    for input_mask in (None, mask):
        x = X if input_mask is None else X.masked_fill(~mask, NAN)
        attention = model.latent_graph(x, input_mask=input_mask).to_dense()
        allowed = torch.eye(5, dtype=torch.bool)
        allowed[EDGES[1], EDGES[0]] = True
        assert attention[:, ~allowed].abs().sum() == 0
        assert (attention[:, allowed] > 0).any(0).all()


def test_command_line_arguments():
    parser = ArgumentParser()
    LatentGNNModel.add_model_specific_args(parser)
    defaults = vars(parser.parse_args([]))
    assert not {"n_nodes", "input_size", "output_size", "horizon", "exog_size"} & set(defaults)
    assert defaults["hidden_size"] == 64
    assert defaults["k_neighbors"] == 8
    assert defaults["graph_per"] == "step"
    assert "candidates" not in defaults, "a tensor has no command line form"
    plain = LatentGNNModel(2, 1, 3, 9)
    built = LatentGNNModel(2, 1, 3, 9, **defaults)
    assert {n: p.shape for n, p in built.named_parameters()} == {
        n: p.shape for n, p in plain.named_parameters()
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--hidden-size", "16"], {"hidden_size": 16}),
        (["--temperature", "0.5"], {"temperature": 0.5}),
        (["--graph-at", "input", "--decoder", "attention"], {"graph_at": "input"}),
        (["--k-neighbors", "3"], {"k_neighbors": 3}),
        (["--norm", "layer"], {"norm": "layer"}),
        (["--likelihood", "gaussian"], {"likelihood": "gaussian"}),
        (["--graph-per", "window"], {"graph_per": "window"}),
        (["--residual", "False"], {"residual": False}),
        (["--gaussian-smoothing", "True"], {"gaussian_smoothing": True}),
    ],
)
def test_values_from_the_command_line(arguments, expected):
    parser = ArgumentParser()
    LatentGNNModel.add_model_specific_args(parser)
    values = vars(parser.parse_args(arguments))
    assert {name: values[name] for name in expected} == expected
    assert LatentGNNModel(2, 1, 3, 9, **values)(torch.randn(4, 6, 9, 2)).shape == (4, 3, 9, 1)


@pytest.mark.parametrize("options", [{}, {"graph_per": "window", "candidates": EDGES}])
def test_reset_parameters_pickle_and_deepcopy(options):
    model = make(**options)
    expected = model(X)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(twin(X), expected)
    model.reset_parameters()
    assert not torch.allclose(model(X), expected)


def test_a_checkpoint_may_name_the_class(tmp_path):
    torch.save({"model_class": LatentGNNModel, "weights": make().state_dict()}, tmp_path / "c.pt")
    stored = torch.load(tmp_path / "c.pt", weights_only=True)
    assert stored["model_class"] is LatentGNNModel
    other = make(seed=1)
    other.load_state_dict(stored["weights"])
    assert torch.equal(other(X), make()(X))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"graph_per": "sample"}, ValueError, "'graph_per' must be one of .*'sample'"),
        ({"candidates": EDGES.numpy()}, TypeError, "'candidates' must be a torch.long .* ndarray"),
        ({"candidates": EDGES - 1}, ValueError, "'candidates' must hold nodes from 0 to 4"),
        ({"candidates": EDGES[:, :1]}, ValueError, "'k_neighbors' must be at most .* 2 .got 3"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"x": X.tolist()}, TypeError, "'x' must be a torch.Tensor"),
        ({"x": X.long()}, TypeError, "'x' must be a floating point"),
        ({"x": X.double()}, TypeError, "'x' must be of the model's dtype"),
        ({"x": X[0]}, ValueError, "'x' must have 4 dimensions"),
        ({"x": X[:, :, 1:]}, ValueError, "'x' .* size 5 in dimension 2"),
        ({"x": X * NAN}, ValueError, "'x' must be finite"),
        ({"u": None}, ValueError, "'u' must be given"),
        ({"u": [1.0]}, TypeError, "'u' must be a torch.Tensor"),
        ({"u": torch.ones(4, 6)}, ValueError, "'u' must have"),
        ({"u": torch.ones(4, 6, 3)}, ValueError, "'u' .* size 2 in dimension"),
        ({"u": torch.ones(4, 5, 2)}, ValueError, "'u' .* size 6 in dimension 1"),
        ({"u": torch.ones(4, 6, 2) * NAN}, ValueError, "'u' must be finite"),
        ({"u_future": None}, ValueError, "'u_future' must be given"),
        ({"u_future": torch.ones(4, 6, 1)}, ValueError, "'u_future' .* size 3 in dimension 1"),
        ({"input_mask": [True]}, TypeError, "'input_mask' must be a torch.Tensor"),
        ({"input_mask": X[:, 1:] > 0}, ValueError, "'input_mask' .* size 6 in dimension 1"),
        ({"input_mask": X[0] > 0}, ValueError, "'input_mask' must have 4 dimensions"),
        ({"input_mask": torch.ones(4, 6, 5, 3)}, ValueError, "'input_mask' .* size 2"),
        ({"teacher_forcing_ratio": 0.5}, ValueError, "'targets' must be given"),
    ],
)
def test_bad_input(inputs, error, message):
    model = make(exog_size=2, future_exog_size=1)
    good = {"x": X, "u": torch.ones(4, 6, 2), "u_future": torch.ones(4, 3, 1)}
    assert model(**good).shape == (4, 3, 5, 1)
    with pytest.raises(error, match=message):
        model(**{**good, **inputs})


@pytest.fixture
def preset():
    """The model and the inputs of the benchmark, smaller."""
    torch.compiler.reset()
    torch.manual_seed(0)
    model = LatentGNNModel(1, 1, 3, 5, 2, future_exog_size=2, **small_preset(k_neighbors=3))
    inputs = {
        "x": X[..., :1],
        "u": torch.randn(4, 6, 2),
        "input_mask": X[..., 1:] > 0,
        "u_future": torch.randn(4, 3, 2),
    }
    return model.eval(), inputs


# Dynamo leaves out recurrent layers by default.
@torch._dynamo.config.patch(allow_rnn=True)
def test_compile_in_one_graph(preset):
    model, inputs = preset
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs), model(**inputs), rtol=0, atol=1e-5)


# Not with decoder="attention": its LSTM starts from a reading, and AOTAutograd of torch 2.13 fails on an LSTM whose
# input needs no gradient.
@torch._dynamo.config.patch(allow_rnn=True)
def test_compile_a_training_step_in_one_graph(preset):
    model, inputs = preset
    gradients = []
    for forward in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        forward(**inputs).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert any(gradient.any() for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
