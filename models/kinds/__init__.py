"""In what the kinds of model differ; may import all of `models`, the training only to learn."""
