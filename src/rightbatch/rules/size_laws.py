"""Rules that compute a batch size from what was measured: noise, step time, rate, compute."""

from __future__ import annotations

import math
from dataclasses import replace

from rightbatch.fit.quantiles import t_interval_of_factor
from rightbatch.records import Interval
from rightbatch.rules.case import Case
from rightbatch.rules.costs import CHEAP, judge_size
from rightbatch.rules.effects import Effect, Finding, Unit, Untold
from rightbatch.rules.known import from_interval
from rightbatch.rules.protocols import Budget, cell_qualities
from rightbatch.rules.rule import Prediction, Rule, no_prediction
from rightbatch.rules.sources import DEEPSEEK, MCCANDLISH, POLLUX, SMITH_LE
from rightbatch.rules.surface import peak

ORDER = math.log(10)
"""What a source gives as an order of magnitude is right within a factor ten."""

EXPONENT_ERROR = 0.3
"""A power of one is right within this."""


# ------------------------------------------------------------------------------------------------ the formulas


def goodput(alpha_seconds: float, beta_seconds: float, noise_scale: float) -> float:
    """The size of most progress per second on one device: sqrt(alpha x noise scale / beta).

    Examples per second B / (alpha + beta B), each worth 1 / (noise scale + B) (Pollux, Qiao et al. 2021).
    """
    return math.sqrt(alpha_seconds * noise_scale / beta_seconds)


def deepseek_tokens(compute: float) -> float:
    """The best batch size of a language model in tokens, 0.2920 C^0.3271 with C the training compute in FLOPs."""
    return float(0.2920 * compute**0.3271)


# ------------------------------------------------------------------------------------------------ noise scales


def _predict_noise(case: Case) -> tuple[Prediction, ...]:
    return (Prediction("batch size", case.noise.scale),) if case.noise else ()


def _no_noise(case: Case) -> Untold:
    return Untold("the gradient noise was not measured", case.command("noise"))


def _judge_noise(case: Case) -> Finding | Untold:
    known = from_interval(case.noise.scale, case.noise.freedom) if case.noise else None
    if case.noise is None or known is None:
        return _no_noise(case)
    if case.untuned:
        return case.untuned
    if case.critical is None or case.tradeoff is None:
        return Untold("the sizes tried do not bound the critical batch size", case.sweep(case.wide()))
    freedom = min(case.noise.freedom, case.tradeoff.hyperbola.freedom)
    value = known.log - case.critical.log
    error = math.hypot(known.error, case.critical.error)
    effect = Effect("noise scale over critical batch size", value, error, freedom, -ORDER, ORDER)
    text = f"noise scale {math.exp(known.log):.3g}, critical batch size {math.exp(case.critical.log):.3g} by steps"
    return Finding((effect,), text, command=_no_noise(case).command)


def _goodput(case: Case) -> Interval | None:
    fit, noise = case.evidence.step_time_fit, case.noise
    if fit is None or noise is None or not math.isfinite(noise.relative_error) or noise.scale.estimate <= 0:
        return None
    alpha, beta = fit.alpha_seconds, fit.beta_seconds
    if alpha.estimate <= 0 or beta.estimate <= 0:
        return None
    size = goodput(alpha.estimate, beta.estimate, noise.scale.estimate)
    return t_interval_of_factor(size, noise.relative_error / 2, noise.freedom)


def _predict_goodput(case: Case) -> tuple[Prediction, ...]:
    size = _goodput(case)
    return (Prediction("batch size", size),) if size else ()


def _judge_goodput(case: Case) -> Finding | Untold:
    size = _goodput(case)
    if size is None:
        return _no_noise(case) if case.noise is None else Untold("the noise scale is not bounded")
    return judge_size(case, size.estimate)


def _predict_deepseek(case: Case) -> tuple[Prediction, ...]:
    compute, tokens = case.known.get("compute"), case.known.get("tokens_per_example")
    if not compute or not tokens:
        return ()
    return (Prediction("batch size", Interval(deepseek_tokens(compute) / tokens)),)


def _judge_deepseek(case: Case) -> Finding | Untold:
    predicted = _predict_deepseek(case)
    if not predicted:
        command = case.judging("--known compute=FLOPS --known tokens_per_example=TOKENS")
        return Untold("compute and tokens are not known (language models only)", command)
    return judge_size(case, predicted[0].value.estimate)


def _judge_peak(case: Case) -> Finding | Untold:
    found = peak(cell_qualities(case.evidence, Budget.EPOCHS) or {})
    if found is None:
        return Untold(
            "quality has no best size at a fixed rate among the sizes tried",
            case.sweep(seeds=3, more="--rates 0.01,0.03162,0.1,0.3162"),
        )
    low, high = 1 - EXPONENT_ERROR, 1 + EXPONENT_ERROR
    effect = Effect("exponent of the rate", found.exponent, found.error, found.freedom, low, high, Unit.NUMBER)
    return Finding((effect,), f"the size of the best quality grows as the rate to the power {found.exponent:.2f}")


RULES = (
    Rule(
        name="noise-scale",
        family="size",
        statement="The gradient noise scale predicts the largest batch size that is useful.",
        sources=(replace(MCCANDLISH, at="equation 2.8, section 3"),),
        scope="any loss and optimizer, as an order of magnitude",
        tolerance="near the end of a training it is within a factor 10 of the critical batch size by steps",
        predict=_predict_noise,
        judge=_judge_noise,
    ),
    Rule(
        name="goodput",
        family="size",
        statement="Time is least at a batch of sqrt(alpha x noise scale / beta), where a step takes alpha + beta B.",
        sources=(POLLUX,),
        scope="one device; the noise scale constant along the training",
        tolerance=CHEAP,
        predict=_predict_goodput,
        judge=_judge_goodput,
    ),
    Rule(
        name="temperature-optimum",
        family="size",
        statement="At a fixed rate, the batch size of the best quality is proportional to the rate.",
        sources=(SMITH_LE,),
        scope="SGD with momentum; also proportional to the number of examples and to 1 / (1 - momentum)",
        tolerance="the best size grows as the rate to a power between 0.7 and 1.3",
        predict=no_prediction,
        judge=_judge_peak,
    ),
    Rule(
        name="deepseek-tokens",
        family="size",
        statement="The best batch of a language model has 0.2920 C^0.3271 tokens, C being the compute in FLOPs.",
        sources=(DEEPSEEK,),
        scope="language models, 1e17 to 2e19 FLOPs, within 0.25 % of the least loss",
        tolerance=CHEAP,
        predict=_predict_deepseek,
        judge=_judge_deepseek,
    ),
)
