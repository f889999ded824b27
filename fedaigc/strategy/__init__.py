"""What an author of a strategy reads: the interface of its two halves, and what they may use."""
