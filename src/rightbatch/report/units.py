"""The only place that formats numbers with units."""

from __future__ import annotations

import math
from collections.abc import Callable

from rightbatch.answer import SizeRow
from rightbatch.question import Objective, gain_short
from rightbatch.records import Interval


def seconds(value: float | None) -> str:
    """A time, at three significant digits: "12.3 ms", "1.07 s", "3 min 20 s", "2 h 05 min"."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never"
    if round(value) >= 3600:
        minutes = round(value / 60)
        return f"{minutes // 60} h {minutes % 60:02d} min"
    if value >= 99.95:
        return f"{round(value) // 60} min {round(value) % 60:02d} s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= 0.9995 * size:
            return f"{significant(value / size)} {unit}"
    return f"{value:.3g} s"


def significant(value: float | None, digits: int = 3) -> str:
    """A number at so many significant digits, without an exponent between a thousandth and a billion."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    # Rounding may lift it to the next power of ten: 9.996 is 10.0.
    size = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if not -4 <= size < 9:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - size)
    return f"{round(value, digits - 1 - size):,.{decimals}f}"


def rate(value: float | None) -> str:
    """A learning rate, as short as it can be said."""
    return "-" if value is None else f"{value:.4g}"


def rate_of(row: SizeRow) -> str:
    """The best rate of a batch size: where it was not trained to the target, from where to where that may lie."""
    if row.seeds or row.best_rate is None or not row.best_rate.known or row.best_rate.low == row.best_rate.high:
        return rate(row.learning_rate) + ("*" if row.at_edge else "")
    return f"{rate(float(f'{row.best_rate.low:.1g}'))}–{rate(float(f'{row.best_rate.high:.1g}'))}"


def cost(value: float | None, objective: Objective) -> str:
    """A cost in the unit of its objective; with METRIC, how far a run falls short of the best, in % of the gain."""
    if objective is Objective.TIME:
        return seconds(value)
    if value is not None and math.isinf(value):
        return "never"
    if value is None or math.isnan(value):
        return "-"
    if objective is Objective.METRIC:
        return f"{significant(100 * gain_short(value), 2)} %"
    return significant(value) + {Objective.EXAMPLES: " examples", Objective.STEPS: " steps"}[objective]


def interval(value: Interval | None, form: Callable[[float], str] = significant) -> str:
    """An estimate with its interval, or with the reason why there is none."""
    if value is None:
        return "-"
    if value.low is None or value.high is None:
        return f"{form(value.estimate)} ({value.note})" if value.note else form(value.estimate)
    return f"{form(value.estimate)} [{form(value.low)}, {form(value.high)}]"


def span(low: float, high: float, form: Callable[[float], str]) -> str:
    """Two ends, the unit said once where it is the same: "36.1 to 48.8 ms"."""
    first, last = form(low), form(high)
    a, b = first.split(), last.split()
    return f"{a[0]} to {last}" if len(a) == len(b) == 2 and a[1] == b[1] else f"{first} to {last}"


def short_seconds(value: float) -> str:
    """A time for a narrow table, always one number: "41.7 s", "238 s", "16.1 min"."""
    if not 99.95 <= value < math.inf:
        return seconds(value)
    unit, size = ("min", 60.0) if value >= 600 else ("s", 1.0)
    return f"{significant(value / size)} {unit}"


def span_seconds(low: float, high: float) -> str:
    """Two times, in one unit where the later is beyond 100 seconds: "32.8 to 198 s", "12.0 to 43.4 min"."""
    if not 99.95 <= high < math.inf:
        return span(low, high, seconds)
    unit, size = ("min", 60.0) if low >= 600 else ("s", 1.0)
    return f"{significant(low / size)} to {significant(high / size)} {unit}"


def sizes(values: tuple[int, ...]) -> str:
    """Batch sizes as a range: "64", "64 to 256"."""
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def times(value: float) -> str:
    """A factor: "1.31x"."""
    return f"{significant(value)}x"
