"""Experiments on which prompts can share their first steps, and on what these steps run."""
