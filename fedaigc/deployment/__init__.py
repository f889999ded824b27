"""Separate machines: a server behind a proxy, and on each device a resident agent."""
