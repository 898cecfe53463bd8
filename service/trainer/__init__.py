"""The child process that learns. Imports: ground, all of `models`."""
