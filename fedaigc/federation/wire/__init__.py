"""Messages between server and devices: their form, their bounds, their bytes."""
