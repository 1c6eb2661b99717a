"""Meshes of devices, how arrays are split over them, and runs of several processes."""
