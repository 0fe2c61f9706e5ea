"""How often are the verdicts of the rule book wrong, and how often are there none? On studies with a known truth.

    python benchmarks/rule_verdicts.py --out benchmarks/rule_verdicts.json

The studies are those of tests/rules/test_verdicts.py: eight sizes, seven rates, five seeds, deviation 0.1, in worlds
with random laws. The truth is what the same study shows without noise.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "tests" / "rules"


def main() -> None:
    sys.path.insert(0, str(FOLDER))
    tests = runpy.run_path(str(FOLDER / "test_verdicts.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=tests["STUDIES"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/rule_verdicts.json"))
    given = parser.parse_args()
    command = f"python benchmarks/rule_verdicts.py --studies {given.studies}"
    record = {"command": command, **tests["summary"](given.studies)}
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in record.items() if name != "by_rule"}, indent=1))


if __name__ == "__main__":
    main()
