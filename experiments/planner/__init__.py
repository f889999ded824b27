"""Experiments on planners: the gap to the optimum, growth with the number of tasks, and a stream of arrivals."""
