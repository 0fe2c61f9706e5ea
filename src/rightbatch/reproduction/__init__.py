"""Papers reproduced: what is claimed before anything runs, what was measured, and what came of each claim.

A file of `reproductions/` holds one `Reproduction` under the name `REPRODUCTION`. Its work is cut into units; a
`Store` keeps each as soon as it is done, so that an interrupted reproduction goes on where it was.
"""

from rightbatch.reproduction.claims import (
    SIZES,
    Claim,
    Comparison,
    Measured,
    Reproduction,
    Result,
    Size,
    held,
)
from rightbatch.reproduction.store import Store, Watch, unwatched

__all__ = [
    "SIZES",
    "Claim",
    "Comparison",
    "Measured",
    "Reproduction",
    "Result",
    "Size",
    "Store",
    "Watch",
    "held",
    "unwatched",
]
