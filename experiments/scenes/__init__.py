"""Where the pictures of the Scenes data set come from."""
