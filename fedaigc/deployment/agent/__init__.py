"""A device's resident agent, its relay, and what lies between them."""
