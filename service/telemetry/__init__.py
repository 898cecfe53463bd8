"""What an API process says of itself: its metrics and how they are shared."""
