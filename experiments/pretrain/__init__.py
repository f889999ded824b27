"""Train the model and the judge that ship with fedaigc."""
