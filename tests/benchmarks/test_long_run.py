from __future__ import annotations

import os

import pytest

from benchmarks.long_run import Footprint, summarize, watch

pytestmark = pytest.mark.tsl


def test_a_summary_compares_the_end_with_what_follows_the_first_steps():
    before, after = Footprint(50.0, 4, 0), Footprint(90.0, 6, 1)
    steps = [(500, 9, 2), (80, 7, 2), (60, 7, 2)]  # not settled
    steps += [(100, 8, 2), (20, 7, 3), (101, 7, 2), (200, 8, 2)]
    steps += [(103, 7, 1), (900, 6, 2), (102, 7, 2)]
    found = summarize([Footprint(*step) for step in steps], before, after, settled=3)
    assert found["rss_mib"] == {"settled": 100, "end": 103, "peak": 900}
    assert found["growth"] == pytest.approx({"end": 0.03, "peak": 8.0})
    assert found["files"] == {"before": 4, "first": 9, "rest": 8, "after": 6}
    assert found["children"] == {"before": 0, "most": 3, "after": 1}
    for settled in (0, 4):
        with pytest.raises(ValueError, match=r"'settled' must be an int from 1 to 3 .* \(got"):
            summarize([before] * 11, before, after, settled)


def test_a_footprint_sees_handles_and_memory(tmp_path):
    before = Footprint.now()
    held = [open(tmp_path / str(number), "w") for number in range(5)]  # noqa: SIM115
    block = bytearray(os.urandom(64)) * 2**20
    during = Footprint.now()
    assert during.files == before.files + 5
    assert during.rss_mib - before.rss_mib > 0.9 * len(block) / 2**20
    for file in held:
        file.close()


def test_epochs_with_workers_leave_nothing_open(make_cfg, la_dir):
    cfg = make_cfg(dataset="la", data_dir=la_dir, workers=1, batch_size=64)
    steps, before, after = watch(cfg, 8)  # of epochs of four steps
    assert len(steps) == 8
    assert max(step.children for step in steps) == 1 + before.children
    assert after.children == before.children
    assert after.files <= before.files
    assert max(step.files for step in steps[4:]) <= max(step.files for step in steps[:4])
