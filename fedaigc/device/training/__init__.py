"""A round on a device, and what an order to train may ask."""
