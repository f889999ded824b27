"""The device's page: for its owner alone, on this machine's loopback."""
