"""A sum over the devices of a group, of which the server learns the total alone: encoding, keys, masks and noise."""
