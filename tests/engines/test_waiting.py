"""A training step queues its work on a GPU without waiting for any of it."""

from tsl_latentgnn import _checks

import pytest
import torch
from engines.small import make, make_batch, make_data, make_gaussian
from torch.utils._python_dispatch import TorchDispatchMode

#: Operators whose answer, or the size of it, the host needs.
WAITING = (
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "nonzero",
    "equal",
    "masked_select",
    "unique",
)


class Waiting(TorchDispatchMode):
    """Names of the operators that a GPU would be waited for."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").split(".")[0]
        picks = name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1])
        if picks or name.startswith(WAITING):
            self.seen.append(func.name())
        return func(*args, **(kwargs or {}))


CASES = {
    "as it is": lambda: make(),
    "state": lambda: make(model={"preset": "state", "node_emb_size": 2}),
    "graph norm": lambda: make(model={"norm": "graph"}),
    "one graph a window": lambda: make(model={"graph_per": "window"}),
    "full static": lambda: make(model={"static": "full"}),
    "scaled target": lambda: make(scale_target=True),
    "teacher forcing": lambda: make(teacher_forcing_ratio=0.5),
    "gaussian": lambda: make_gaussian(),
}


def masked_batch():
    batch = make_batch(make_data())
    batch.input["input_mask"] = torch.rand(batch.input["x"].shape) > 0.3
    return batch


def training_step(predictor, batch):
    predictor.train()
    predictor.log = predictor.log_dict = lambda *args, **kwargs: None
    optimizer = torch.optim.SGD(predictor.parameters(), lr=0.1)

    def run():
        optimizer.zero_grad()
        predictor.training_step(batch, 0).backward()
        optimizer.step()

    return run


@pytest.mark.parametrize("case", CASES)
def test_nothing_waits(case, monkeypatch):
    monkeypatch.setattr(_checks, "ASYNC_DEVICES", ("cpu",))
    run = training_step(CASES[case](), masked_batch())
    run()
    with Waiting() as waiting:
        run()
    assert waiting.seen == []


def test_what_waits_is_seen():
    x = torch.tensor([1.0, 2.0])
    with Waiting() as waiting:
        _checks.check_finite("x", x)
        x[x > 1]
        x.nonzero()
    assert [name.split(".")[0] for name in waiting.seen] == [
        "aten::_local_scalar_dense",
        "aten::index",
        "aten::nonzero",
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", CASES)
def test_nothing_waits_on_a_gpu(case):
    run = training_step(CASES[case]().cuda(), masked_batch().to("cuda"))
    run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_what_is_not_finite_raises_without_waiting(monkeypatch):
    monkeypatch.setattr(_checks, "ASYNC_DEVICES", ("cpu",))
    with pytest.raises(RuntimeError, match=r"'x' must be finite\. See there"):
        _checks.check_finite("x", torch.tensor([1.0, torch.nan]), " See there.")
    _checks.check_finite("x", torch.tensor([1.0, 2.0]))
