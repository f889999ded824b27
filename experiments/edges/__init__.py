"""One level against several edges under one server: bytes on both hops, seconds, and shared steps."""
