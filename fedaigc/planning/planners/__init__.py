"""Planners: one a file, all with the interface of `planner.Planner`."""
