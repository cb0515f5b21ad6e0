"""Checkpoints as they come: compiled, of subclasses, edited, damaged, or made to ask for too much."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import zipfile
from collections import OrderedDict
from functools import partial
from pathlib import Path

from tsl_latentgnn.engines import LatentGNNPredictor, RunCheckpointIO, check_fits, read_checkpoint
from tsl_latentgnn.forecaster import Forecaster
from tsl_latentgnn.models import LatentGNNModel

import numpy as np
import pandas as pd
import pytest
import torch
from small import NODES, make, make_data, make_trainer

from tsl.engines import Predictor  # isort: skip

pytestmark = [pytest.mark.tsl, pytest.mark.filterwarnings("ignore")]

PATH = Path(__file__).with_name("checkpoint_0_1.ckpt")
READINGS = 50 + 10 * np.random.default_rng(0).normal(size=(1, 5, NODES))


class Own(LatentGNNModel):
    """A subclass with an argument more."""

    def __init__(self, *args, extra, **kwargs):
        super().__init__(*args, **kwargs)
        self.extra = extra


class Plain(LatentGNNModel):
    """A subclass with other computations."""


@pytest.fixture
def checkpoint():
    """What a checkpoint holds, to change; its model has a card and a Gaussian likelihood."""
    return copy.deepcopy(read_checkpoint(PATH, "path"))


@pytest.fixture
def put(tmp_path):
    def put(content):
        torch.save(content, tmp_path / "put.ckpt")
        return tmp_path / "put.ckpt"

    return put


def forecast(path):
    return Forecaster.from_checkpoint(path)(READINGS, [pd.Timestamp("2026-01-04 07:00")], [0.5])


@functools.cache
def sample():
    """A predictor that takes the checkpoint."""
    return LatentGNNPredictor.load_from_checkpoint(PATH)


def resume(path):
    predictor = sample()
    fits = partial(check_fits, predictor=predictor, about={})
    predictor.load_state_dict(RunCheckpointIO(fits).load_checkpoint(path)["state_dict"])
    return predictor


#: The roads on which a checkpoint comes in, and what each calls the file.
ROADS = {
    "checkpoint": lambda path: Forecaster.from_checkpoint(path).model,
    "checkpoint_path": lambda path: LatentGNNPredictor.load_from_checkpoint(path).model,
    "filename": lambda path: load(sample(), path),
    "ckpt_path": lambda path: resume(path).model,
}


def load(predictor, path):
    predictor.load_model(path)
    return predictor.model


@pytest.fixture(autouse=True)
def zeroed():
    """No road finds its weights there already."""
    for weight in sample().parameters():
        weight.data.zero_()


def assert_same_weights(model, checkpoint):
    for name, value in model.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"]["model." + name]), name


# ------------------------------------------------------------------- what Lightning makes as a matter of course


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("part", ["model.", "model.decoder."])
def test_weights_of_a_compiled_model_or_part_are_its_weights(checkpoint, put, road, part):
    before = checkpoint["state_dict"]
    named = {
        name.replace(part, part + "_orig_mod.", 1) if name.startswith(part) else name: value
        for name, value in before.items()
    }
    assert named.keys() != before.keys()
    path = put({**checkpoint, "state_dict": named})
    assert_same_weights(ROADS[road](path), checkpoint)


def test_weights_go_into_a_compiled_model(checkpoint):
    predictor = LatentGNNPredictor.load_from_checkpoint(PATH)
    for weight in predictor.parameters():
        weight.data.zero_()
    predictor.model = torch.compile(predictor.model, backend="eager")
    predictor.load_model(PATH)
    assert_same_weights(predictor.model._orig_mod, checkpoint)
    fits = partial(check_fits, predictor=predictor, about={})
    taken = RunCheckpointIO(fits).load_checkpoint(PATH)["state_dict"]
    assert taken.keys() == predictor.state_dict().keys()


def test_a_compiled_checkpoint_of_0_1_is_loaded(checkpoint, put):
    raw = torch.load(PATH, weights_only=True)
    raw["state_dict"] = {
        name.replace("model.", "model._orig_mod.", 1): value
        for name, value in raw["state_dict"].items()
    }
    assert_same_weights(Forecaster.from_checkpoint(put(raw)).model, checkpoint)


def save(predictor, folder):
    trainer = make_trainer(folder)
    trainer.fit(predictor, datamodule=make_data())
    trainer.save_checkpoint(folder / "saved.ckpt")
    return folder / "saved.ckpt"


@pytest.mark.parametrize(
    "given",
    [
        partial(LatentGNNModel, 1, 1, 3, NODES, k_neighbors=np.int64(2)),
        partial(LatentGNNModel, 1, 1, horizon=3, n_nodes=NODES, preset="seq2seq", modes=(2, 2)),
        partial(Own, 1, 1, 3, NODES, hidden_size=4, extra="more"),
        partial(Plain, 1, 1, 3, n_nodes=NODES, hidden_size=4),
    ],
)
def test_a_model_made_outside_is_made_again(tmp_path, given):
    model = given()
    options = {"optim_class": torch.optim.Adam, "optim_kwargs": {"lr": 0.01}}
    path = save(LatentGNNPredictor(model, make().loss_fn, **options), tmp_path)
    found = LatentGNNPredictor.load_from_checkpoint(path).model
    assert type(found) is type(model)
    assert getattr(found, "extra", None) == getattr(model, "extra", None)
    for one, other in zip(found.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    mine = given()
    assert LatentGNNPredictor.load_from_checkpoint(path, model=mine).model is mine
    checkpoint = read_checkpoint(path, "path")
    card = read_checkpoint(PATH, "path")["data_card"]
    torch.save({**checkpoint, "data_card": card}, path)
    assert type(Forecaster.from_checkpoint(path).model) is type(model)


def test_a_model_made_outside_of_tsls_predictor_says_what_to_do(tmp_path):
    predictor = Predictor(
        LatentGNNModel(1, 1, 3, NODES, hidden_size=4),
        make().loss_fn,
        optim_class=torch.optim.Adam,
        optim_kwargs={"lr": 0.01},
    )
    path = save(predictor, tmp_path)
    message = (
        "'checkpoint_path' must hold .*lacks model_class, model_kwargs.* or a LatentGNNPredictor"
    )
    with pytest.raises(ValueError, match=message):
        LatentGNNPredictor.load_from_checkpoint(path)
    with pytest.raises(ValueError, match=r"'checkpoint' must be .* of a LatentGNNModel"):
        Forecaster.from_checkpoint(path)


def test_the_arguments_are_seen_as_before():
    assert "hidden_size" in inspect.signature(LatentGNNModel).parameters
    assert "extra" in inspect.signature(Own).parameters
    assert inspect.signature(Plain) == inspect.signature(LatentGNNModel)
    twin = copy.deepcopy(Own(1, 1, 3, NODES, extra=1))
    sizes = {"input_size": 1, "output_size": 1, "horizon": 3, "n_nodes": NODES}
    assert twin.arguments == {**sizes, "extra": 1}


def test_a_class_that_is_not_imported_is_named(checkpoint, put, monkeypatch):
    before = torch.serialization.get_safe_globals()
    Gone = type("Gone", (LatentGNNModel,), {"__module__": __name__})
    monkeypatch.setitem(globals(), "Gone", Gone)
    checkpoint["hyper_parameters"]["model_class"] = Gone
    path = put(checkpoint)
    assert type(Forecaster.from_checkpoint(path).model) is Gone
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)
    with pytest.raises(
        ValueError, match=r"names \S+\.Gone, which is .* once its module is imported"
    ):
        Forecaster.from_checkpoint(path)


# --------------------------------------------------------------------------------- what somebody has changed


ABSENT = object()


def change(checkpoint, *keys, to):
    place = checkpoint
    for key in keys[:-1]:
        place = place[key]
    if to is ABSENT:
        del place[keys[-1]]
    else:
        place[keys[-1]] = to
    return checkpoint


WEIGHT = "model.input_encoder.weight"


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize(
    ("keys", "to"),
    [
        *((("state_dict",), to) for to in (ABSENT, None, {}, [], "x", {"x": 1}, {3: None})),
        *((("state_dict", WEIGHT), to) for to in (ABSENT, None, "x", 1.0, torch.zeros(2, 3, 4))),
        (("state_dict", WEIGHT), torch.zeros(4, 2, dtype=torch.long)),
        (("state_dict", WEIGHT), torch.zeros(4, 2, dtype=torch.cfloat)),
        (("state_dict", WEIGHT), torch.zeros(4, 2, device="meta")),
        (("state_dict", "model.unknown"), torch.zeros(2)),
        *((("hyper_parameters",), to) for to in (ABSENT, None, {}, "x", [1])),
        *((("hyper_parameters", "model_kwargs"), to) for to in (ABSENT, None, {}, "x", [1], 3)),
        (("hyper_parameters", "model_kwargs", "unknown"), 1),
        (("hyper_parameters", "model_kwargs", 3), 1),
        (("hyper_parameters", "model_kwargs", "n_nodes"), "four"),
        (("hyper_parameters", "model_kwargs", "n_nodes"), math.nan),
        (("hyper_parameters", "model_kwargs", "preset"), ["x"]),
        (("hyper_parameters", "model_kwargs", "hidden_size"), 8),
        *(
            (("hyper_parameters", "model_class"), to)
            for to in (ABSENT, None, "x", torch.optim.Adam)
        ),
    ],
)
def test_a_changed_checkpoint_is_refused_in_words(checkpoint, put, road, keys, to):
    path = put(change(checkpoint, *keys, to=to))
    with pytest.raises(ValueError, match=rf"'{road}' must .*put\.ckpt"):
        ROADS[road](path)


@pytest.mark.parametrize(
    ("keys", "to"),
    [
        *(((), to) for to in (None, {}, "x", [1])),
        *((("sensors",), to) for to in (ABSENT, None, "abcd", ["a", "b"], [1, 2, 3, 4])),
        *((("window",), to) for to in ("5", -1, 2.5, None)),
        *((("step_seconds",), to) for to in (0, math.nan, "5 min", 10**400)),
        *((("scale",), to) for to in (0.0, "x", torch.zeros(3), torch.tensor(math.nan))),
        (("inputs",), ["u"]),
    ],
)
def test_a_changed_card_is_refused_in_words(checkpoint, put, keys, to):
    path = put(change(checkpoint, "data_card", *keys, to=to))
    with pytest.raises(ValueError, match=r"'checkpoint' must .*put\.ckpt.*'data_card'"):
        Forecaster.from_checkpoint(path)


@pytest.mark.parametrize("road", ["checkpoint", "checkpoint_path", "filename"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_make_no_forecasts(checkpoint, put, road, value):
    checkpoint["state_dict"][WEIGHT][0, 1] = value
    with pytest.raises(ValueError, match=rf"'{road}' must .*input_encoder.weight holds 1 values"):
        ROADS[road](put(checkpoint))


def test_a_training_that_diverged_goes_on_as_it_would_have(checkpoint, put):
    checkpoint["state_dict"][WEIGHT][0, 1] = math.nan
    assert resume(put(checkpoint)).model.input_encoder.weight.isnan().any()


# ------------------------------------------------------------------------------------ what a file may ask for


SECRET = "TSL_LATENTGNN_TEST_SECRET"


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("node", ["dict", "list", "in a list", "text"])
def test_no_text_in_a_checkpoint_is_resolved(checkpoint, put, monkeypatch, road, node):
    omegaconf = pytest.importorskip("omegaconf")
    monkeypatch.setenv(SECRET, "4821")
    text = "${oc.env:" + SECRET + "}"
    config = omegaconf.OmegaConf.create({"a": {**checkpoint["hyper_parameters"]["model_kwargs"]}})
    config.a.update(hidden_size=text, modes=[text, 2])
    kwargs = checkpoint["hyper_parameters"]["model_kwargs"]
    if node == "dict":
        checkpoint["hyper_parameters"]["model_kwargs"] = config.a
    else:
        node = {"list": config.a.modes, "in a list": (config.a.modes, 2), "text": text}[node]
        kwargs["modes"] = node
    assert int(config.a.hidden_size) == 4821  # it is live
    with pytest.raises(ValueError, match=f"'{road}' must") as refused:
        ROADS[road](put(checkpoint))
    chain = refused.value
    while chain is not None:
        assert "4821" not in str(chain)
        chain = chain.__cause__ or chain.__context__


@pytest.mark.parametrize("road", ["checkpoint", "checkpoint_path"])
@pytest.mark.parametrize(
    "asked",
    [
        {"n_nodes": 10**6},
        {"n_nodes": 10**6, "static": "full"},
        {"hidden_size": 10**6},
        {"latent_layers": 10**9},
        {"lstm_layers": 10**9},
        {"modes": (10**9, 10**9)},
        {"modes": [10**4, 10**4]},
        {"horizon": 10**30},
        {
            "candidates": torch.stack([torch.arange(500), torch.zeros(500).long()]),
            "n_nodes": 60_000,
        },
    ],
)
def test_a_small_file_does_not_ask_for_a_large_model(checkpoint, put, monkeypatch, road, asked):
    checkpoint["hyper_parameters"]["model_kwargs"].update(asked)
    path = put(checkpoint)
    made = []
    init = torch.nn.Module.__init__
    with monkeypatch.context() as patch:
        patch.setattr(
            torch.nn.Module, "__init__", lambda *a, **k: (made.append(1), init(*a, **k))[1]
        )
        with pytest.raises(ValueError, match=f"'{road}' must"):
            ROADS[road](path)
    assert len(made) < 1000


@pytest.mark.parametrize("road", ["checkpoint", "checkpoint_path"])
def test_one_number_does_not_stand_for_a_million(checkpoint, put, road):
    """As a view of one number, or as weights that share one."""
    one = torch.zeros(1)
    path = put(change(checkpoint, "state_dict", WEIGHT, to=one.expand(10**6, 10**6)))
    with pytest.raises(ValueError, match=f"'{road}' must be a whole checkpoint"):
        ROADS[road](path)
    shared = torch.zeros(4000, 4)
    kwargs = {"input_size": 1, "output_size": 1, "horizon": 1, "n_nodes": 4000, "hidden_size": 4}
    kwargs.update(static=4, latent_layers=40, shared_static=False, node_emb_size=0)
    model = LatentGNNModel(**kwargs)
    weights = {
        "model." + name: shared if value.shape == shared.shape else value
        for name, value in model.state_dict().items()
    }
    checkpoint["hyper_parameters"]["model_kwargs"] = kwargs
    with pytest.raises(ValueError, match=f"'{road}' must hold .* the model takes .* bytes"):
        ROADS[road](put({**checkpoint, "state_dict": weights}))


class Call:
    """Calls ``function(*arguments)`` when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        Call(LatentGNNModel, 1, 1, 1, 10),
        Call(Plain, 1, 1, 1, 10),
        Call(bytearray, 2000),
        Call(torch.Tensor, 20, 20),
        Call(torch.nn.functional.l1_loss, torch.ones(2), torch.ones(2)),
        Call(torch.optim.SGD, [torch.ones(1)]),
    ],
)
def test_a_checkpoint_names_classes_and_calls_none(checkpoint, put, call):
    checkpoint["more"] = call
    path = put(checkpoint)
    torch.load(path, weights_only=True)  # to torch it is harmless
    with pytest.raises(ValueError, match="must be a checkpoint that holds nothing but data"):
        read_checkpoint(path, "path")


# ----------------------------------------------------------------------------------------------- damaged bits


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path):
    whole = PATH.read_bytes()
    expected = forecast(PATH).mean
    draw = np.random.default_rng(0)
    refused = 0
    for place in draw.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(draw.integers(0, 8))
        (tmp_path / "damaged.ckpt").write_bytes(damaged)
        try:
            found = forecast(tmp_path / "damaged.ckpt").mean
        except ValueError as error:
            assert "'checkpoint' must be" in str(error)  # noqa: PT017
            refused += 1
        else:
            np.testing.assert_array_equal(found, expected)
    assert refused > 20


def test_a_page_of_zeros_is_found(tmp_path):
    whole = PATH.read_bytes()
    for start in range(0, len(whole), 16384):
        damaged = whole[:start] + bytes(min(4096, len(whole) - start)) + whole[start + 4096 :]
        (tmp_path / "damaged.ckpt").write_bytes(damaged)
        with pytest.raises(ValueError, match="'path' must be"):
            read_checkpoint(tmp_path / "damaged.ckpt", "path")


def test_compressed_and_doubled_parts_are_refused(tmp_path):
    with zipfile.ZipFile(PATH) as whole:
        parts = [(part, whole.read(part)) for part in whole.infolist()]
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "again.ckpt", "w", kind) as again:
            for part, content in parts:
                again.writestr(part.filename, content)
        if kind == zipfile.ZIP_STORED:
            read_checkpoint(tmp_path / "again.ckpt", "path")
        else:
            with pytest.raises(ValueError, match="must be a whole checkpoint"):
                read_checkpoint(tmp_path / "again.ckpt", "path")
    with zipfile.ZipFile(tmp_path / "again.ckpt", "w") as again:
        for part, content in [*parts, *parts[:1]]:
            again.writestr(part.filename, content)
    with pytest.raises(ValueError, match="must be a whole checkpoint"):
        read_checkpoint(tmp_path / "again.ckpt", "path")


def test_what_nests_without_end_is_refused(tmp_path):
    knot = OrderedDict()
    knot["state_dict"] = knot
    torch.save(knot, tmp_path / "knot.ckpt")
    with pytest.raises(ValueError, match="'checkpoint' must"):
        Forecaster.from_checkpoint(tmp_path / "knot.ckpt")
    deep: list = []
    for _ in range(300):
        deep = [deep]
    torch.save({"state_dict": deep}, tmp_path / "deep.ckpt")
    with pytest.raises(ValueError, match="'checkpoint' must"):
        Forecaster.from_checkpoint(tmp_path / "deep.ckpt")
