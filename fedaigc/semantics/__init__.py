"""Meaning without disclosure: prompts to concepts, concepts to signatures, signatures to groups."""
