"""From a request to frames: the sampling methods as streams."""
