"""Published PyTorch weights into model folders, and back."""
