"""The four topologies on one set of prompts, on devices that move: steps, joules, seconds and bits."""
