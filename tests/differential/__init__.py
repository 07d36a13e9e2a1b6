"""Small random PKIs, and an independent search for the valid paths in them."""
