"""How a device answers messages of the federation."""
