"""Planning of sharing trees: which waiting tasks share which denoising steps, at a required quality.

Everything here is a function of plain values: `Tasks`, a `Setting` and a `Plan`. No model is loaded and nothing is sent.
"""
