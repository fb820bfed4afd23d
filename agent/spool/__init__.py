"""The directory protocol: which wants there are, reading them safely, writing progress beside them."""
