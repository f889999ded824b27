"""Comparing runs: paired statistics over seeds and clients, tables and plots."""
