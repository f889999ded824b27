"""Data sets: the embedded Scenes, any image-and-caption data set, and how clients share them out."""
