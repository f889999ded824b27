"""Files: written atomically, readable only by their user, and locked."""
