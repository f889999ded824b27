"""Scores of images, and their uncertainty."""
