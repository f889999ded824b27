"""Two devices and no server: they pair by a short code, and share the first steps of two prompts over TLS."""
