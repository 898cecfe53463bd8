"""The command line. Imports: `client`, `processes`, `store`, `domain`, `worker`, `models`."""
