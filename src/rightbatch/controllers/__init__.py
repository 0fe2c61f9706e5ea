"""Controllers of the batch size while training: planned, or led by loss, gradients and clock.

`contract` says what each is told and says. A further one is a frozen dataclass with two functions, and a line here.
"""

from rightbatch.controllers.by_noise import CABS, Goodput, InnerProductTest, NoiseFollowing, NormTest
from rightbatch.controllers.contract import Choice, Controller, Limits, Seen, State
from rightbatch.controllers.damping import AdaDamp, GeoDamp, PadaDamp, RadaDamp
from rightbatch.controllers.planned import InsteadOfDecay, Planned
from rightbatch.controllers.tuned import TunedGoodput

CONTROLLERS = {
    "planned": Planned,
    "instead-of-decay": InsteadOfDecay,
    "noise-following": NoiseFollowing,
    "goodput": Goodput,
    "tuned-goodput": TunedGoodput,
    "norm-test": NormTest,
    "inner-product-test": InnerProductTest,
    "cabs": CABS,
    "adadamp": AdaDamp,
    "padadamp": PadaDamp,
    "geodamp": GeoDamp,
    "radadamp": RadaDamp,
}

__all__ = [
    "CABS",
    "CONTROLLERS",
    "AdaDamp",
    "Choice",
    "Controller",
    "GeoDamp",
    "Goodput",
    "InnerProductTest",
    "InsteadOfDecay",
    "Limits",
    "NoiseFollowing",
    "NormTest",
    "PadaDamp",
    "Planned",
    "RadaDamp",
    "Seen",
    "State",
    "TunedGoodput",
]
