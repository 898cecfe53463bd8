"""A version, its artifact and its use, without torch. Imports: ground, `parts`, `scores`."""
