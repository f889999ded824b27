"""Planning of sharing trees: which waiting tasks share which denoising steps, at a required quality.

All of it is functions of plain values: `Tasks`, a `Setting` and a `Plan`. No model is loaded and nothing is sent.
"""
