"""A test among waiting devices whether their prompts are equal, which tells nothing else of them."""
