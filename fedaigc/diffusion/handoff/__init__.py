"""A denoising state as a packet between two machines."""
