"""Very small, normal, huge in numbers: the zones of every recorded table, from all of its runs.

    python benchmarks/zones.py

`sweep` reads the table as it would train: the rate tuned at every size, costs in training seconds of one thread.
Writes zones.json.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import rightbatch
from rightbatch.tables import read_rows

TABLES = Path(__file__).parent / "tables"

TARGETS = {
    "fashion_logistic": -0.45,
    "fashion_mlp": 0.86,
    "fashion_cnn": 0.85,
    "letter": 0.93,
    "protein_regression": -0.6,
    "char_gru": -2.15,
    "char_transformer": -2.3,
}
"""Those the tables were recorded for; losses are negated there."""


def of_table(name: str, target: float, folder: Path) -> dict[str, Any]:
    """Its best size, what is as good, and where the tuned cost passes twice the best."""
    path = TABLES / f"{name}.csv.gz"
    sizes = sorted({int(row["batch_size"]) for row in read_rows(path)})
    study = folder / f"{name}.study.db"
    answer = rightbatch.sweep(str(path), sizes, study=study, target=target, direction="max")
    return {
        "sizes": sizes,
        "batch_size": answer.batch_size,
        "learning_rate": answer.learning_rate,
        "as_good": answer.as_good,
        "not_excluded": answer.not_excluded,
        "cost_seconds": answer.cost.estimate,
        "costs": {row.batch_size: row.cost.estimate for row in answer.sizes if row.cost is not None},
        **{
            edge: {
                "batch_size": zone.batch_size,
                "throughput_share": zone.throughput_share,
                "critical_ratio": zone.critical_ratio,
            }
            for edge, zone in (
                ("very_small_below", answer.zones.very_small_below),
                ("huge_above", answer.zones.huge_above),
            )
        },
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = {name: of_table(name, target, Path(folder)) for name, target in TARGETS.items()}
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
