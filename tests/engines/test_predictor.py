from __future__ import annotations

import math
from types import SimpleNamespace

from tsl_latentgnn.engines import LatentGNNPredictor
from tsl_latentgnn.engines.predictor import masked_nll
from tsl_latentgnn.models import LatentGNNModel

import pytest
import pytorch_lightning as pl
import torch
from scipy import stats
from small import (
    HORIZON,
    NODES,
    WINDOW,
    make,
    make_batch,
    make_data,
    make_gaussian,
    make_trainer,
    scaling,
)
from torch.distributions import Normal

# The imports above mend tsl, where it has to be.
from tsl.engines import Predictor  # isort: skip
from tsl.metrics.torch import MaskedMAE, MaskedMSE  # isort: skip
from tsl.nn.models import RNNModel  # isort: skip

pytestmark = [
    pytest.mark.tsl,
    pytest.mark.filterwarnings("ignore:.*have no logger configured"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def watch(predictor):
    """What reaches the forward of the model."""
    seen = []
    predictor.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(dict(kwargs)), with_kwargs=True
    )
    return seen


def at_step(predictor, step):
    """Let the predictor believe in a trainer that has done so many optimizer steps."""
    predictor._trainer = SimpleNamespace(global_step=step)
    return predictor


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("scaled", "masked"), [(True, True), (True, False), (False, True)])
def test_targets_come_in_the_scale_of_the_model(channels, scaled, masked):
    data = make_data(channels, scaled, masked)
    sizes = {"input_size": channels, "output_size": channels}
    predictor = make(model=sizes, teacher_forcing_ratio=0.7).train()
    seen, batch = watch(predictor), make_batch(data)
    predictor.predict_batch(batch)
    targets = seen[0]["targets"]
    assert seen[0]["teacher_forcing_ratio"] == 0.7

    mean, std = scaling(data) if scaled else (torch.zeros(channels), torch.ones(channels))
    expected = (batch.target["y"].double() - mean) / std
    if masked:
        known = batch.mask.bool()
        assert (~known).sum() > 0
        assert torch.equal(targets.isnan(), ~known)
        targets, expected = targets[known], expected[known]
    torch.testing.assert_close(targets.double(), expected, rtol=1e-4, atol=1e-4)
    # The same readings, as inputs of later windows, are on the same scale.
    later = data.torch_dataset[torch.arange(10, 16) + WINDOW].input["x"][:, :HORIZON]
    torch.testing.assert_close(
        seen[0]["targets"].nan_to_num(0.0),
        later if not masked else torch.where(batch.mask.bool(), later, 0.0),
        rtol=1e-4,
        atol=1e-4,
    )


def test_targets_come_while_training_only():
    batch = make_batch(make_data())
    predictor = make(teacher_forcing_ratio=1.0)
    seen = watch(predictor)
    forced = predictor.train().predict_batch(batch)
    free = predictor.eval().predict_batch(batch)
    assert "targets" in seen[0]
    assert "targets" not in seen[1]
    assert "teacher_forcing_ratio" not in seen[1]
    assert not torch.allclose(forced, free)

    plain = make().train()
    seen = watch(plain)
    torch.testing.assert_close(plain.predict_batch(batch), free)
    assert "targets" not in seen[0]


def test_without_teacher_forcing_it_is_the_predictor_of_tsl():
    batch = make_batch(make_data())
    ours = make(scale_target=True)
    theirs = Predictor(ours.model, MaskedMAE(), True, {"mae": MaskedMAE()})
    for predictor in (ours, theirs):
        predictor.log = predictor.log_dict = lambda *args, **kwargs: None
    torch.testing.assert_close(ours.training_step(batch, 0), theirs.training_step(batch, 0))
    torch.testing.assert_close(ours.validation_step(batch, 0), theirs.validation_step(batch, 0))
    torch.testing.assert_close(ours.test_step(batch, 0), theirs.test_step(batch, 0))
    ours, theirs = ours.predict_step(batch, 0), theirs.predict_step(batch, 0)
    assert set(ours) == set(theirs) == {"y", "y_hat", "mask"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("step", [0, 1, 7, 20, 35, 1000])
def test_schedules(step):
    schedules = {
        None: 0.8,
        "linear": 0.8 * max(0.0, 1 - step / 20),
        "exponential": 0.8 * math.exp(-step / 20),
        "sigmoid": 0.8 * 20 / (20 + math.exp(step / 20)),
    }
    for decay, expected in schedules.items():
        predictor = make(
            teacher_forcing_ratio=0.8, teacher_forcing_decay=decay, teacher_forcing_steps=20
        )
        ratio = at_step(predictor, step).current_teacher_forcing_ratio
        assert ratio == pytest.approx(expected, rel=1e-12)


def test_what_the_model_cannot_do_is_refused_before_the_training():
    rnn = {"input_size": 1, "output_size": 1, "horizon": HORIZON}
    with pytest.raises(ValueError, match=r"'dense_epochs' must be 0 .* \(got 3 with RNNModel\)"):
        LatentGNNPredictor(
            model_class=RNNModel, model_kwargs=rnn, loss_fn=MaskedMAE(), dense_epochs=3
        )
    with pytest.raises(ValueError, match="'dense_epochs' must be an int >= 0"):
        make(dense_epochs=-1)
    with pytest.raises(ValueError, match="'teacher_forcing_ratio' must be 0 with decoder='direct'"):
        make(model={"decoder": "direct"}, teacher_forcing_ratio=0.5)


def test_graph_of_a_batch():
    predictor, batch = make(), make_batch(make_data())
    graph = predictor.latent_graph(batch)
    assert torch.equal(graph.weights, predictor.model.latent_graph(batch.input.x).weights)
    first = predictor.latent_graph(batch, layer=0)
    assert torch.equal(first.weights, predictor.model.latent_graph(batch.input.x, layer=0).weights)
    assert not torch.equal(first.weights, graph.weights)


@pytest.mark.parametrize("decay", ["linear", "exponential", "sigmoid"])
def test_schedules_end_at_zero(decay):
    predictor = make(
        teacher_forcing_ratio=1.0, teacher_forcing_decay=decay, teacher_forcing_steps=1
    )
    assert at_step(predictor, 10**9).current_teacher_forcing_ratio == pytest.approx(0.0, abs=1e-300)


def test_a_ratio_that_has_decayed_forces_nothing():
    batch = make_batch(make_data())
    predictor = make(
        teacher_forcing_ratio=1.0, teacher_forcing_decay="linear", teacher_forcing_steps=10
    ).train()
    late = at_step(predictor, 10).predict_batch(batch)
    torch.testing.assert_close(late, make().train().predict_batch(batch))


def test_the_schedule_follows_the_optimizer_steps(tmp_path):
    predictor = make(
        teacher_forcing_ratio=0.5, teacher_forcing_decay="linear", teacher_forcing_steps=4
    )
    seen, logged = watch(predictor), []
    log = predictor.log

    def record(name, value, **kwargs):
        if name == "teacher_forcing_ratio":
            logged.append(value)
        return log(name, value, **kwargs)

    predictor.log = record
    make_trainer(tmp_path, epochs=2).fit(predictor, datamodule=make_data())
    ratios = [kwargs["teacher_forcing_ratio"] for kwargs in seen if "targets" in kwargs]
    assert len(ratios) == 6
    expected = [0.5 * max(0.0, 1 - step / 4) for step in range(len(ratios))]
    assert ratios == pytest.approx(expected)
    assert logged == pytest.approx(expected)
    assert sum("targets" not in kwargs for kwargs in seen) > 0, "validation is not forced"


def scipy_nll(predictor, batch, data, scaled):
    """Mean negative log-likelihood of the readings that are there, by scipy."""
    with torch.no_grad():
        forecast = predictor.model.forecast(**batch.input)
    mean, std = scaling(data)
    loc, scale, y = forecast.mean.double(), forecast.scale.double(), batch.y.double()
    if scaled:
        y = (y - mean) / std
    else:
        loc, scale = loc * std + mean, scale * std
    logpdf = stats.norm.logpdf(y.numpy(), loc.numpy(), scale.numpy())
    return -logpdf[batch.mask.bool().numpy()].mean(), loc


@pytest.mark.parametrize("scale_target", [False, True])
def test_likelihood_matches_scipy(scale_target):
    data = make_data()
    predictor, batch = make_gaussian(scale_target=scale_target), make_batch(data)
    logged = {}
    predictor.log = lambda name, value, **kwargs: logged.update({name: float(value)})
    predictor.log_dict = lambda metrics, **kwargs: logged.update(metrics.compute())
    for step, split in (("training", "train"), ("validation", "val"), ("test", "test")):
        loss = getattr(predictor, f"{step}_step")(batch, 0)
        scaled = scale_target and split != "test"
        expected, _ = scipy_nll(predictor, batch, data, scaled)
        assert loss.item() == pytest.approx(expected, rel=1e-4)
        assert logged[f"{split}_loss"] == pytest.approx(expected, rel=1e-4)
        # The metrics are those of the mean, in the original range.
        _, loc = scipy_nll(predictor, batch, data, scaled=False)
        error = (loc - batch.y)[batch.mask.bool()].abs().mean().item()
        assert float(logged[f"{split}_mae"]) == pytest.approx(error, rel=1e-4)


def test_likelihood_sees_no_missing_target():
    batch = make_batch(make_data())
    predictor = make_gaussian(teacher_forcing_ratio=1.0).train()
    predictor.log = predictor.log_dict = lambda *args, **kwargs: None
    expected = predictor.training_step(batch, 0)
    batch.target["y"] = batch.target["y"].masked_fill(~batch.mask.bool(), math.nan)
    loss = predictor.training_step(batch, 0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in predictor.parameters() if p.grad is not None)


def test_masked_nll():
    torch.manual_seed(0)
    loc, scale = torch.randn(3, 4, 2).double(), torch.rand(3, 4, 2).double() + 0.1
    y, mask = torch.randn(3, 4, 2).double(), torch.rand(3, 4, 2) > 0.5
    logpdf = stats.norm.logpdf(y.numpy(), loc.numpy(), scale.numpy())
    normal = Normal(loc, scale)
    assert masked_nll(normal, y).item() == pytest.approx(-logpdf.mean())
    assert masked_nll(normal, y, mask).item() == pytest.approx(-logpdf[mask.numpy()].mean())
    # A mask of one channel stands for all, as tsl allows.
    rows = mask[..., :1]
    expected = -logpdf[rows.expand(3, 4, 2).numpy()].mean()
    assert masked_nll(normal, y, rows).item() == pytest.approx(expected)
    assert masked_nll(normal, y, torch.zeros_like(mask)).item() == 0.0


@pytest.mark.parametrize("channels", [1, 2])
def test_quantiles_match_scipy(channels):
    data = make_data(channels)
    sizes = {"input_size": channels, "output_size": channels, "likelihood": "gaussian"}
    levels = (0.1, 0.5, 0.75)
    predictor = make(model=sizes, loss_fn=None, quantiles=levels).eval()
    batch = make_batch(data)
    with torch.no_grad():
        output = predictor.predict_step(batch, 0)
        forecast = predictor.model.forecast(**batch.input)
        scaled = predictor.predict_distribution(batch, postprocess=False)
    assert set(output) == {"y", "y_hat", "mask", "quantiles"}
    assert output["quantiles"].shape == (6, HORIZON, NODES, channels, 3)
    mean, std = scaling(data)
    loc = (forecast.mean.double() * std + mean).numpy()
    scale = (forecast.scale.double() * std).numpy()
    for index, level in enumerate(levels):
        expected = torch.as_tensor(stats.norm.ppf(level, loc, scale))
        quantile = output["quantiles"][..., index].double()
        torch.testing.assert_close(quantile, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output["quantiles"][..., 1], output["y_hat"])
    assert torch.equal(output["y"], batch.y)
    assert torch.equal(output["mask"], batch.mask)
    assert torch.equal(scaled.loc, forecast.mean)
    assert torch.equal(scaled.scale, forecast.scale)


@pytest.mark.parametrize("scaled", [True, False])
def test_distribution_without_mask_or_scaler(scaled):
    data = make_data(scaled=scaled, masked=False)
    predictor, batch = make_gaussian().eval(), make_batch(data)
    with torch.no_grad():
        output = predictor.predict_step(batch, 0)
        normal = predictor.predict_distribution(batch)
    assert "mask" not in output
    assert torch.equal(normal.loc, output["y_hat"])
    predictor.log = predictor.log_dict = lambda *args, **kwargs: None
    expected = -stats.norm.logpdf(
        batch.y.double().numpy(), normal.loc.double().numpy(), normal.scale.double().numpy()
    ).mean()
    assert predictor.test_step(batch, 0).item() == pytest.approx(expected, rel=1e-4)


def test_a_narrow_forecast_far_from_zero_keeps_its_spread():
    """Readings near a million with a spread of one: the scale must not drown in the bias."""
    predictor, batch = make_gaussian().eval(), make_batch(make_data())
    scaler = batch.transform["y"]
    with torch.no_grad():
        scaler.bias.fill_(1e6)
        scaler.scale.fill_(1.0)
        normal = predictor.predict_distribution(batch, postprocess=False)
        back = predictor.predict_distribution(batch)
    torch.testing.assert_close(back.scale, normal.scale, rtol=1e-3, atol=0.0)


def test_a_gaussian_head_trains_end_to_end(tmp_path):
    torch.manual_seed(0)
    data = make_data()
    predictor = make_gaussian(
        scale_target=True, teacher_forcing_ratio=0.5, teacher_forcing_decay="sigmoid"
    )
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=1)
    trainer = make_trainer(tmp_path, epochs=15, callbacks=[checkpoint])
    batch = make_batch(data)
    before, _ = scipy_nll(predictor.eval(), batch, data, scaled=True)
    trainer.fit(predictor, datamodule=data)
    predictor.load_model(checkpoint.best_model_path)
    after, _ = scipy_nll(predictor.eval(), batch, data, scaled=True)
    assert after < before - 0.1
    result = trainer.test(predictor, datamodule=data, verbose=False)[0]
    outputs = trainer.predict(predictor, dataloaders=data.test_dataloader())
    output = predictor.collate_prediction_outputs(outputs)
    error = (output["y_hat"] - output["y"]).abs()[output["mask"].bool()].mean().item()
    assert result["test_mae"] == pytest.approx(error, rel=1e-4)
    assert (output["quantiles"].diff(dim=-1) > 0).all()


def test_checkpoints_keep_the_new_arguments(tmp_path):
    options = {
        "teacher_forcing_ratio": 0.25,
        "teacher_forcing_decay": "exponential",
        "teacher_forcing_steps": 77,
        "quantiles": [0.2, 0.8],
    }
    predictor = make_gaussian(scale_target=True, **options)
    trainer = make_trainer(tmp_path)
    trainer.fit(predictor, datamodule=make_data())
    trainer.save_checkpoint(tmp_path / "last.ckpt")

    twin = LatentGNNPredictor.load_from_checkpoint(tmp_path / "last.ckpt")
    assert twin.teacher_forcing_ratio == 0.25
    assert twin.teacher_forcing_decay == "exponential"
    assert twin.teacher_forcing_steps == 77
    assert tuple(twin.quantiles) == (0.2, 0.8)
    assert twin.scale_target is True
    assert set(twin.val_metrics) == {"val_mae", "val_mse"}
    weights = predictor.state_dict()
    assert weights.keys() == twin.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in twin.state_dict().items())

    other = make_gaussian(seed=1, **options)
    assert not torch.equal(next(other.parameters()), next(predictor.parameters()))
    other.load_model(tmp_path / "last.ckpt")
    assert all(torch.equal(value, weights[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"teacher_forcing_ratio": 1.5}, ValueError, "'teacher_forcing_ratio' .* <= 1"),
        ({"teacher_forcing_ratio": -0.5}, ValueError, "'teacher_forcing_ratio' .* >= 0"),
        ({"teacher_forcing_ratio": None}, TypeError, "'teacher_forcing_ratio' must be a number"),
        ({"teacher_forcing_decay": "cosine"}, ValueError, "'teacher_forcing_decay' must be one of"),
        ({"teacher_forcing_steps": 0}, ValueError, "'teacher_forcing_steps' must be an int >= 1"),
        ({"teacher_forcing_steps": 1.5}, TypeError, "'teacher_forcing_steps' must be an int"),
        ({"quantiles": ()}, ValueError, "'quantiles' must be levels"),
        ({"quantiles": (0.0, 0.5)}, ValueError, "'quantiles' must be levels"),
        ({"quantiles": (0.5, 1.0)}, ValueError, "'quantiles' must be levels"),
        ({"quantiles": (math.nan,)}, ValueError, "'quantiles' must be finite"),
        ({"quantiles": 0.5}, TypeError, "'quantiles' must be"),
        ({"quantiles": ("0.5",)}, TypeError, "'quantiles' must be"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_a_model_without_targets_cannot_be_forced():
    rnn = RNNModel(1, 1, HORIZON, hidden_size=4)
    predictor = LatentGNNPredictor(rnn, MaskedMAE()).train()
    batch = make_batch(make_data())
    assert predictor.predict_batch(batch).shape == (6, HORIZON, NODES, 1)
    with pytest.raises(ValueError, match="'model' must have likelihood='gaussian'"):
        predictor.predict_distribution(batch)
    with pytest.raises(
        ValueError, match=r"'teacher_forcing_ratio' must be 0 .* \(got 0.5 with RNN"
    ):
        LatentGNNPredictor(rnn, MaskedMAE(), teacher_forcing_ratio=0.5).train().predict_batch(batch)


def test_a_point_forecast_has_no_distribution():
    with pytest.raises(ValueError, match="'model' must have likelihood='gaussian'"):
        make().predict_distribution(make_batch(make_data()))


@pytest.mark.parametrize("loss_fn", [MaskedMAE(), MaskedMSE()])
@pytest.mark.parametrize("scale_target", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_masked_target_has_no_influence_on_the_training(loss_fn, scale_target, value):
    def step(spoil):
        predictor = make(loss_fn=loss_fn, scale_target=scale_target)
        predictor.log_metrics = predictor.log_loss = lambda *args, **kwargs: None
        batch = make_batch(make_data())
        assert not bool(batch.mask.all())
        if spoil:
            batch.y[~batch.mask] = value
        loss = predictor.training_step(batch, 0)
        return loss, torch.autograd.grad(loss, list(predictor.model.parameters()))

    (expected, gradients), (loss, same) = step(False), step(True)
    assert torch.equal(loss, expected)
    for gradient, other in zip(gradients, same, strict=True):
        assert torch.equal(gradient, other)
    assert any(bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("likelihood", ["quantile", "student_t"])
def test_a_likelihood_that_it_does_not_train_is_refused(likelihood):
    model = LatentGNNModel(1, 1, 3, 4, likelihood=likelihood)
    with pytest.raises(ValueError, match="'model' must have likelihood=None or 'gaussian'"):
        LatentGNNPredictor(model=model)
