"""What differs between the kinds of model. Imports: all of `models`; `training` only in `learn`."""
