"""How sharp the minimum is that a training ended in, measured on its weights.

`surface`: the loss as a function of all weights in one vector. `box`: its maximum in a box about them (Keskar et al.);
`subspace`: the same among random directions. `spectrum`: the largest eigenvalue and the trace of its Hessian. `paths`:
along lines between two minima. `measuring`: the table of all that `rightbatch sharpness` can measure.
"""
