"""Deployments on this machine for tests and measurements: started, captured, slowed down, attacked."""
