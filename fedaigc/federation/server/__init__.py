"""The server of a run: roster, rounds, generation, records."""
