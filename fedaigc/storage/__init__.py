"""Files: written whole, readable by their user alone, and locked."""
