"""What a device keeps: images, prompts, pictures, adapters, and what it disclosed."""
