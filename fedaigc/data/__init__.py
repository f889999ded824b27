"""Data sets: the embedded Scenes, other data sets of images and captions, and partitions over clients."""
