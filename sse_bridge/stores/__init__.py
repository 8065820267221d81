"""Where runs live, so that viewers can find them."""
