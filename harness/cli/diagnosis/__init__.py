"""``bench doctor``: what of this machine or of a model will not work, and what to do about it."""
