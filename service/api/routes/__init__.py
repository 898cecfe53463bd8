"""The routes: each file holds those of one noun."""
