"""The device's page: for its owner only, on this machine's loopback interface."""
