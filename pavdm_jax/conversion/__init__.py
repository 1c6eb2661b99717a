"""Conversion of published PyTorch weights into model folders, and back."""
