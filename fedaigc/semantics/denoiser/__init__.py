"""The space in which the denoiser itself says how much two prompts have in common."""
