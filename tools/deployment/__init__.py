"""Deployments on this machine for tests and measurements: start, capture, slow down and attack them."""
