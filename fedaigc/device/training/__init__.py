"""A training round on a device, and the limits of an order to train."""
