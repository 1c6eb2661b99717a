"""Training data: the shapes world, videos, TFDS, latents, batches."""
