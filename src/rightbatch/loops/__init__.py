"""Training loops of one's own, written as generators of points. Any framework will do; imports no torch."""

from rightbatch.loops.loop import Loop, LoopTrial
from rightbatch.loops.runner import LoopRunner

__all__ = ["Loop", "LoopRunner", "LoopTrial"]
