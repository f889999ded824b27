"""What a run of denoising is: its plan, its steps and their noise."""
