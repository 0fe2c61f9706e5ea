"""Strategies: what to train next, from the evidence so far. They hold no state, so any command can be continued."""
