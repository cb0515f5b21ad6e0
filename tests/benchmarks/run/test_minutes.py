"""The cap in CPU minutes."""

from __future__ import annotations

import pytest

from benchmarks.forecasting import run
from benchmarks.run import provenance

pytestmark = pytest.mark.tsl


@pytest.mark.parametrize(("cap", "epochs"), [(0.5, 2), (0.75, 3), (10.0, 4), ("null", 4)])
def test_no_epoch_begins_after_the_cap(make_settings, gpvar_dir, quick, monkeypatch, cap, epochs):
    clock = iter(range(0, 10_000, 15))  # a quarter of a minute passes whenever somebody looks
    monkeypatch.setattr(provenance.time, "process_time", lambda: float(next(clock)))
    settings = make_settings(
        *quick, "epochs=4", f"max_minutes={cap}", dataset="gpvar", model="ar", data_dir=gpvar_dir
    )
    assert run(settings)["epochs"] == epochs


def test_a_cap_of_nothing_is_refused(make_settings, gpvar_dir, quick):
    settings = make_settings(
        *quick, "max_minutes=0", dataset="gpvar", model="ar", data_dir=gpvar_dir
    )
    with pytest.raises(ValueError, match=r"'max_minutes' must be > 0 or null \(got 0\)"):
        run(settings)
