"""Where runs live, so that viewers find them."""
