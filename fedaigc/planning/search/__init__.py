"""The search for a sharing tree: a forest that blocks are merged in, within cells of bounded size."""
