"""Streams of prompts that wait together: what sharing saves, and what it costs in pictures."""
