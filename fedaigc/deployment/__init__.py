"""Federations on separate machines: a server behind a proxy, and a resident agent on each device."""
