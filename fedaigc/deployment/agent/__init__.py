"""A device's resident agent, its relay, and the socket between them."""
