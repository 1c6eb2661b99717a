"""Noise levels, the window, the sampler, training objectives. No network is known here."""
