"""The atlas that ships with the embedded model: its captions, and the command that builds it."""
