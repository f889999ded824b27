"""Pictures and captions of other people: read as they are meant, or refused by file, row or line."""
