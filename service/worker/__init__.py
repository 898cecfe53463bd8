"""Where detectors learn. Imports: ground, `domain`, `store`, `trainer`, `processes`, `models`."""
