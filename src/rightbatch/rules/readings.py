"""Where sources disagree: "large batches are worse", read off the same curves under each protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rightbatch.evidence import Evidence
from rightbatch.rules.effects import LEVEL, Effect, Finding, Untold, Verdict, holm
from rightbatch.rules.protocols import Budget, Protocol, Qualities, Tuning, qualities
from rightbatch.rules.quality import SAME_QUALITY, loss_of_large

ASSUMED: dict[Protocol, str] = {
    Protocol(Budget.EPOCHS, Tuning.ONE_RATE): "Keskar et al. 2017, Thoma 2017, Smith and Le 2018",
    Protocol(Budget.EPOCHS, Tuning.TUNED): "Masters and Luschi 2018, Breuel 2015",
    Protocol(Budget.STEPS, Tuning.ONE_RATE): "",
    Protocol(Budget.STEPS, Tuning.TUNED): "Hoffer et al. 2017, Shallue et al. 2019",
    Protocol(Budget.SECONDS, Tuning.ONE_RATE): "",
    Protocol(Budget.SECONDS, Tuning.TUNED): "whoever pays for time",
}
"""Every protocol, and whose claims on quality assume it."""


@dataclass(frozen=True)
class Reading:
    """One protocol: by how much the largest size is worse than sizes from 32 to 512, and whether that is so.

    `verdict` is of "the largest size is worse by at least 1 % of the gain". `rates` are those of all sizes, `given` is
    the protocol in words.
    """

    protocol: Protocol
    assumed_by: str
    effect: Effect
    rates: tuple[tuple[int, float], ...]
    verdict: Verdict
    given: str


def readings(evidence: Evidence, level: float = LEVEL) -> tuple[Reading, ...] | Untold:
    """The claim under every protocol that the curves allow (Holm over these), or why it cannot be read at all."""
    found: list[tuple[Qualities, Effect]] = []
    why = Untold("no sizes from 32 to 512 beside one four times as large")
    for protocol in ASSUMED:
        known = qualities(evidence, protocol)
        if isinstance(known, Untold):
            why = known
            continue
        effect = loss_of_large(known)
        if effect is not None:
            found.append((known, replace(effect, low=SAME_QUALITY)))
    if not found:
        return why
    verdicts = holm([Finding((effect,)) for _, effect in found], level)
    return tuple(
        Reading(
            known.protocol,
            ASSUMED[known.protocol],
            effect,
            tuple((one.batch_size, one.learning_rate) for one in known.sizes),
            verdict,
            known.given,
        )
        for (known, effect), verdict in zip(found, verdicts, strict=True)
    )
