"""Run a part of the steps of any diffusers pipeline, bit for bit."""
