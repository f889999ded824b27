"""The quality of the shipped model's pictures, by the judge and by eye."""
