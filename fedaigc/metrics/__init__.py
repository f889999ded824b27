"""Scores of pictures, and how sure they are."""
