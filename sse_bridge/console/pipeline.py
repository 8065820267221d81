"""A small data pipeline to watch: ten batches of measurements in about ten seconds, and a CSV file at the end.

It uses only the standard library. The figures are made up, and the same in every run.
"""

from __future__ import annotations

import csv
import random
import statistics
import sys
import time
from pathlib import Path

BATCHES = 10
ROWS_PER_BATCH = 500
STEP = 0.33  # seconds; a batch takes three steps
DAMAGED_ROWS = {4: 217, 8: 41}  # batch: the row that lacks its value

RESULTS = Path("results.csv")
COLUMNS = ["batch", "count", "mean", "stdev", "min", "max"]


def main() -> None:
    log("Starting data pipeline...")
    summaries = [process(batch) for batch in range(1, BATCHES + 1)]

    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(summaries)

    log("Pipeline finished.")
    log(f"  measurements  {sum(row['count'] for row in summaries):,}")
    log(f"  results       {RESULTS.resolve()}")
    log(f"  rows          {len(summaries)}")


def process(batch: int) -> dict[str, float]:
    log(f"Batch {batch}/{BATCHES}: reading {ROWS_PER_BATCH} rows")
    rows = read(batch)
    time.sleep(STEP)

    values = [value for value in rows if value is not None]
    if len(values) < len(rows):
        warn(f"batch {batch}, row {rows.index(None) + 1}: missing value, row skipped")
    log(f"  cleaned     {len(values)} rows kept")
    time.sleep(STEP)

    summary = {
        "batch": batch,
        "count": len(values),
        "mean": round(statistics.fmean(values), 3),
        "stdev": round(statistics.stdev(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }
    log(f"  summarized  mean {summary['mean']:.3f}, max {summary['max']:.3f}")
    time.sleep(STEP)
    return summary


def read(batch: int) -> list[float | None]:
    """One batch of temperatures in degrees Celsius; some batches lack a value."""
    source = random.Random(batch)
    rows: list[float | None] = [source.gauss(20 + batch / 4, 1.5) for _ in range(ROWS_PER_BATCH)]
    if batch in DAMAGED_ROWS:
        rows[DAMAGED_ROWS[batch] - 1] = None
    return rows


def log(text: str) -> None:
    print(text, flush=True)


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
