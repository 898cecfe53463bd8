"""Immutable pieces of a version. Imports: ground of `models`, numeric libraries."""
