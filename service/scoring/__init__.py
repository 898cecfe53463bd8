"""Bodies in, replies out, from memory. Imports: ground, `domain`, `models` without torch."""
