"""The plan of a denoising run: its steps and their noise levels."""
