"""Ways to start a run: in this process, in Flower's simulation, or on a SuperLink."""
