"""Figures 2 to 6 of [Du23] on many prompt pairs, in the paper's mode and in ours.

[Du23] Du et al., "Exploring Collaborative Distributed Diffusion-Based AI-Generated Content (AIGC) in Wireless
Networks", IEEE Network 2023, arXiv:2304.03446.
"""
