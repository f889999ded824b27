"""What a device answers."""
