"""What an API process says of itself. Imports: ground, `domain`, `store`, `scoring`."""
