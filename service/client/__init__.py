"""The HTTP client. Imports: nothing else of ours."""
