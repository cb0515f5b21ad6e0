"""Results of runs: one JSON line each, and how they look in print."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

METRICS = ("mae", "rmse", "mape")
SPLITS = ("val", "test")


#: What every line holds, apart from the settings and the environment of the run.
_REQUIRED: dict[str, Any] = {
    "dataset": str,
    "model": str,
    "label": str | None,
    "seed": int | None,
    **dict.fromkeys(SPLITS, object),
    "parameters": int,
}
#: What a line may hold, and a table shows.
_OPTIONAL = dict.fromkeys(("seconds_per_epoch", "cpu_minutes", "peak_mib"), int | float | None)

#: What makes two lines the same result. A run that is trained for longer has other settings.
_IDENTITY = ("run", "dataset", "model", "label", "seed", "settings")


def metric_key(metric: str, mark: str | None = None) -> str:
    """Return the name under which a metric is logged, overall or at a mark of the horizon."""
    return metric if mark is None else f"{metric}_at_{mark.replace(' ', '_')}"


def collect_errors(logged: Mapping[str, float], split: str, marks: Iterable[str]) -> dict[str, Any]:
    """Return the errors of a split from the metrics that tsl logged.

    Args:
        logged: Metrics such as ``test_mae`` and ``test_mse_at_15``, none of a part that was not scored.
        split: ``"val"`` or ``"test"``.
        marks: Labels of the points of the horizon.

    Returns:
        dict: ``{"mae", "rmse", "mape", "mase", "at": {mark: {"mae", "rmse", "mape"}}}``. RMSE is the root
        of the squared error pooled over all valid readings; MAPE is a fraction; MASE is the mean of the errors in
        parts of those of the naive forecast, where it is logged. What is not finite is ``None``, for JSON has no
        other word for it.
    """

    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    def errors(mark: str | None) -> dict[str, float | None]:
        mae, mse, mape = (
            float(logged[f"{split}_{metric_key(metric, mark)}"]) if logged else math.nan
            for metric in ("mae", "mse", "mape")
        )
        rmse = math.sqrt(mse) if mse >= 0 else math.nan
        values = {"mae": mae, "rmse": rmse, "mape": mape}
        return {name: number(value) for name, value in values.items()}

    key = f"{split}_mase"
    scaled = {"mase": number(float(logged[key]))} if key in logged else {}
    return {**errors(None), **scaled, "at": {mark: errors(mark) for mark in marks}}


def append_record(path: str | os.PathLike[str], record: Mapping[str, Any]) -> bool:
    """Append a record to a file of results, as one line in one write: runs may share the file.

    A record with a ``"run"`` is not written again by that run with the same settings, as when it
    was ended after its result was written, and went on. What a run has left of a line is removed;
    of anything else in the file, nothing.

    Returns:
        bool: Whether the record was written; ``False`` if it was there already.

    Raises:
        OSError: If the line could not be written in full; then nothing of it is in the file.
    """
    line = (json.dumps(record, allow_nan=False) + "\n").encode()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    binary = getattr(os, "O_BINARY", 0)  # Windows
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | binary, 0o644)
    try:
        with contextlib.suppress(OSError, AttributeError):  # a file system, or one without locks
            fcntl.lockf(file, fcntl.LOCK_EX)  # until the file is closed
        before = os.read(file, os.fstat(file).st_size)  # to close another handle would unlock
        if "run" in record and _holds(before, json.loads(line)):
            return False
        start = before.rfind(b"\n") + 1
        unfinished = is_ours(before) and _parse_json(before[start:]) is None
        size = start if unfinished else len(before)
        if size < len(before):
            os.ftruncate(file, size)
        if before[:size] and not before[:size].endswith(b"\n"):
            line = b"\n" + line
        written = os.write(file, line)
        if written != len(line):
            os.ftruncate(file, size)
            raise OSError(
                errno.ENOSPC,
                f"only {written} of {len(line)} bytes of the result were written",
                os.fspath(path),
            )
        os.fsync(file)
    finally:
        os.close(file)
    return True


def check_results_file(path: str | os.PathLike[str]) -> None:
    """Raise a :class:`ValueError` unless a file is one of results, or not there, before its run begins."""
    if os.path.exists(path) and not (os.path.isfile(path) and is_ours(Path(path).read_bytes())):
        raise ValueError(
            f"'results_file' must be a file of results, one JSON object a line, or none yet (got "
            f"{os.fspath(path)!r}, which is something else). Name another file."
        )


def is_ours(content: bytes) -> bool:
    """Return whether a file holds records and nothing else, but for a last line that was cut short."""
    *lines, last = content.split(b"\n")
    whole = all(isinstance(_parse_json(line), dict) for line in lines if line.strip())
    return whole and (last.startswith(b'{"') or b'{"'.startswith(last))


def _holds(content: bytes, record: Mapping[str, Any]) -> bool:
    others = map(_parse_json, content.splitlines())
    return any(
        isinstance(other, dict) and all(other.get(key) == record.get(key) for key in _IDENTITY)
        for other in others
    )


def _parse_json(line: bytes) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(line)
    return None


def read_records(paths: Sequence[str | os.PathLike[str]]) -> Iterator[dict[str, Any]]:
    """Yield the records of files of results, in order; empty lines are passed over.

    Raises:
        ValueError: If a file is missing or a line is not a record; the message names both.
    """
    for path in paths:
        if not os.path.isfile(path):
            raise ValueError(
                f"'FILE' must be a file of results (got {os.fspath(path)!r}: no such file)."
            )
        for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
            if line.strip():
                yield _parse(line, f"{os.fspath(path)}, line {number}")


def _parse(line: bytes, where: str) -> dict[str, Any]:
    def check(holds: bool, problem: str) -> None:
        if not holds:
            raise ValueError(f"{where}: {problem}")

    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError) as error:  # not only of its syntax
        raise ValueError(f"{where}: not a JSON object ({error}).") from error
    check(isinstance(record, dict), f"not a JSON object (got {type(record).__name__}).")
    missing = [key for key in _REQUIRED if key not in record]
    check(not missing, f"not a result: {', '.join(missing)} missing.")
    for key, kind in {**_REQUIRED, **_OPTIONAL}.items():
        held, name = record.get(key), getattr(kind, "__name__", kind)
        check(
            key not in record or isinstance(held, kind), f"'{key}' must be {name} (got {held!r})."
        )
    for split in SPLITS:
        errors = record[split]
        whole = isinstance(errors, dict) and isinstance(errors.get("at"), dict)
        check(whole, f"'{split}' must hold errors and 'at' (got {errors!r}).")
        for place in (errors, *errors["at"].values()):
            for metric in METRICS:
                held = place.get(metric, "") if isinstance(place, dict) else ""
                problem = f"'{split}' must hold the number '{metric}' (got {place!r})."
                check(isinstance(held, int | float | None), problem)
    return record


def to_number(value: float | None) -> float:
    """Return an error of a record; one that was not finite is NaN."""
    return math.nan if value is None else value


def to_markdown(
    header: Sequence[str], rows: Iterable[Sequence[str]], text: Collection[int] = (0,)
) -> str:
    """Return a Markdown table of numbers, but for the columns ``text``, which are aligned left."""
    rule = ["---" if place in text else "---:" for place in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *rows))


def mark_title(mark: str) -> str:
    """Return a mark of the horizon in words: ``"15 min"``; ``"step 1"`` without a clock."""
    return f"{mark} min" if mark.isdigit() else mark


def describe(record: Mapping[str, Any]) -> str:
    """Return the result of one run as a table in plain text."""
    name = f"{record['model']} on {record['dataset']}, seed {record['seed']}"
    if record["label"] is not None:
        name += f", {record['label']}"
    lines = [name, f"{'':>14}{'MAE':>10}{'RMSE':>10}{'MAPE (%)':>12}"]
    for split in SPLITS:
        errors = record[split]
        rows = {"overall": errors, **{mark_title(m): e for m, e in errors["at"].items()}}
        for title, row in rows.items():
            mae, rmse, mape = (to_number(row[m]) for m in METRICS)
            lines.append(f"{split:<5}{title:>9}{mae:>10.4f}{rmse:>10.4f}{100 * mape:>12.2f}")
    seconds = record["seconds_per_epoch"]
    speed = "not trained" if seconds is None else f"{seconds:.2f} s/epoch"
    if record.get("cpu_minutes") is not None:
        speed += f", {record['cpu_minutes']:.2f} CPU minutes"
    lines.append(
        f"{record['parameters']:,} parameters, {record['epochs']} epochs, {speed}, "
        f"peak {record['peak_mib']:,.0f} MiB"
    )
    return "\n".join(lines)
