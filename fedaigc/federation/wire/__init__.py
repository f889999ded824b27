"""Messages between server and devices: their format, their bounds and their size in bytes."""
