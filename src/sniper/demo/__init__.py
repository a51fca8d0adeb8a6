"""``sniper demo``: the whole method on packaged photos and weights, without a network."""
