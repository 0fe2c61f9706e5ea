"""What a check of a workload finds: faults and notes, each with what was seen and what to do. Imports no torch."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Fault(enum.Enum):
    """What may be wrong with a workload. The value is the title that people read; the name is what JSON has."""

    CONSTRUCTION = "the workload cannot be made"
    DATA_NOT_FINITE = "the data has values that are not finite"
    RAISED = "the code of the workload raised an error"
    SHAPE = "the loss or the metric returns what it may not"
    NO_GRADIENT = "parameters get no gradient, or no step"
    RATE_IGNORED = "the learning rate of the trial is not used"
    BATCH_SIZE_IGNORED = "the batch size of the trial is not used"
    BATCH_IGNORED = "the loss does not depend on the batch"
    NOT_FINITE = "the loss or the metric is not finite"
    NO_LEARNING = "learning does not begin"
    WRONG_DIRECTION = "the metric gets worse while the loss gets better"
    TARGET_REACHED = "the target is reached from the start"
    TARGET_OUT_OF_REACH = "the target is not of the size of what is judged"
    FEW_STEPS = "runs are planned to be very short"
    NO_SEED = "the command is given no seed"
    MODEL_KEPT = "the model is not made anew for each run"
    NOT_REPEATABLE = "two runs of one seed differ"
    OVERLAP = "validation examples are among the training examples"
    WAITING = "training waits for its data"
    LOADER_SIZE = "the batches of the loader are not of the size asked for"
    LOADER_ORDER = "the loader gives the same batches for every seed"
    BATCH_DEPENDENT = "the loss of an example depends on the others in its batch"
    SUMMED_LOSS = "the loss is a sum over the batch"
    BATCH_NORM = "batch normalisation ties the examples of a batch together"
    FEW_EXAMPLES = "few examples judge the runs"
    EVALUATION = "evaluation costs more than training"
    LENGTH_BOUND = "only the ends of runs count"
    SCHEDULE_OF_STEPS = "the schedule does not end where the run does"
    NO_POINT = "no evaluation could be had"

    @property
    def why(self) -> str:
        """Why it matters, in half a sentence."""
        return WHY[self]


WHY: dict[Fault, str] = {
    Fault.CONSTRUCTION: "nothing can be run",
    Fault.DATA_NOT_FINITE: "one such value makes all weights NaN",
    Fault.RAISED: "runs would end there",
    Fault.SHAPE: "the mean over the examples is then not known",
    Fault.NO_GRADIENT: "what is not trained stays as it was drawn",
    Fault.RATE_IGNORED: "all rates would be one and the same run",
    Fault.BATCH_SIZE_IGNORED: "all sizes would be one and the same run",
    Fault.BATCH_IGNORED: "nothing is learned of the data, and all batches are one and the same",
    Fault.NOT_FINITE: "such a run counts as diverged",
    Fault.NO_LEARNING: "no size can be told from another where nothing is learned",
    Fault.WRONG_DIRECTION: "the worst size and rate would be taken for the best",
    Fault.TARGET_REACHED: "how soon it is reached is what sizes are compared by",
    Fault.TARGET_OUT_OF_REACH: "every run would be made in vain",
    Fault.FEW_STEPS: "larger batches have no step left to learn in",
    Fault.NO_SEED: "several seeds are to show by how much runs differ by chance",
    Fault.MODEL_KEPT: "each run would begin where the one before has ended",
    Fault.NOT_REPEATABLE: "a seed is to be the only difference between runs of one choice",
    Fault.OVERLAP: "what was trained on does not show how well other examples are judged",
    Fault.WAITING: "seconds would tell of the loader, not of the batch size",
    Fault.LOADER_SIZE: "examples seen are counted as steps times batch size",
    Fault.LOADER_ORDER: "every pass and every seed would train in one order",
    Fault.BATCH_DEPENDENT: "what is judged would change with the size of a batch",
    Fault.SUMMED_LOSS: "the gradient grows with the batch, and the best rate shrinks as it does",
    Fault.BATCH_NORM: "very small batches suffer from the noise of their statistics",
    Fault.FEW_EXAMPLES: "chance in the validation data would choose the size",
    Fault.EVALUATION: "most of the time of a study would not be training",
    Fault.LENGTH_BOUND: "what a run reaches half-way depends on how long it was planned",
    Fault.SCHEDULE_OF_STEPS: "larger batches have fewer steps, and end at another rate than smaller ones",
    Fault.NO_POINT: "a run is known by its evaluations only",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found: what was seen, in numbers, and what to do. A note is no fault: one can go on."""

    fault: Fault
    seen: str
    do: str
    note: bool = False


@dataclass(frozen=True)
class NotLookedAt:
    """A check that could not be made, and why."""

    check: str
    why: str


@dataclass(frozen=True)
class CheckReport:
    """All that a check found in `seconds`; `looked_at` names the checks that were made to their end."""

    workload: str
    findings: tuple[Finding, ...]
    looked_at: tuple[str, ...]
    seconds: float
    not_looked_at: tuple[NotLookedAt, ...] = ()

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are not notes."""
        return tuple(finding for finding in self.findings if not finding.note)

    @property
    def clean(self) -> bool:
        """Whether there is no fault."""
        return not self.faults
