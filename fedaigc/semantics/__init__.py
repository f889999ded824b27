"""Group tasks by meaning without disclosing prompts: prompts to concepts, to signatures, to groups."""
