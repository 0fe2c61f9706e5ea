"""Fits: pure functions from measured numbers to a frozen fit with intervals. No torch, no study, nothing stored."""
