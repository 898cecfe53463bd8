"""What differs between the kinds of model. Imports: all of `models` that needs no torch."""
