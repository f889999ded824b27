"""How good the shipped model's pictures are, by the judge and by eye."""
