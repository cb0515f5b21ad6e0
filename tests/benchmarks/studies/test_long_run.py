from __future__ import annotations

import os

import pytest

from benchmarks.studies.long_run import Footprint, summarize, watch

pytestmark = pytest.mark.tsl


def test_a_summary_takes_the_peak_after_the_first_steps():
    before, after = Footprint(0, 50.0, 4, 0), Footprint(9, 90.0, 6, 1)
    seen = [(2, 80, 9, 2), (4, 100, 7, 2), (6, 101, 8, 2), (8, 99, 7, 3)]
    found = summarize([Footprint(*one) for one in seen], before, after, settled=5)
    assert found["steps"] == 9
    assert found["mib"] == {"settled": 100, "peak": 101, "end": 99}
    assert found["growth"] == pytest.approx(0.01)
    assert found["files"] == {"before": 4, "first": 9, "rest": 8, "after": 6}
    assert found["children"] == {"before": 0, "most": 3, "after": 1}
    for settled in (1, 8):
        with pytest.raises(
            ValueError, match=r"'settled' must be an int with looks before .* \(got"
        ):
            summarize([Footprint(*one) for one in seen], before, after, settled)


def test_a_footprint_sees_handles_and_memory(tmp_path):
    before = Footprint.now(0)
    held = [open(tmp_path / str(number), "w") for number in range(5)]  # noqa: SIM115
    block = bytearray(os.urandom(64)) * 2**20
    during = Footprint.now(1)
    assert during.files == before.files + 5
    assert during.mib - before.mib == pytest.approx(len(block) / 2**20, rel=0.02)
    for file in held:
        file.close()
    del block
    after = Footprint.now(2)
    assert after.files == before.files
    assert after.mib == pytest.approx(before.mib, rel=0.01)


def test_epochs_with_workers_leave_nothing_open(make_settings, la_dir):
    settings = make_settings(dataset="la", data_dir=la_dir, workers=1, batch_size=64)
    seen, before, after = watch(settings, 8, 2)  # of epochs of four steps
    assert [one.step for one in seen] == [2, 4, 6, 8]
    assert max(one.children for one in seen) == 1 + before.children
    assert after.children == before.children
    assert after.files <= before.files
    assert max(one.files for one in seen[2:]) <= max(one.files for one in seen[:2])
