"""What a device stores: images, prompts, finished images, adapters, and its disclosure log."""
