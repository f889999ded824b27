"""The sources of the pictures in the Scenes data set."""
