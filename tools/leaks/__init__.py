"""Search for private content in what leaves a device."""
