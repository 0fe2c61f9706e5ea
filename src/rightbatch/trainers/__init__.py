"""Callbacks for the trainers of other packages, `lightning` and `transformers`: the batch grows while they train.

Both have the trainer accumulate more micro-batches a step. The file of each needs its package, and nothing else does.
"""
