"""A loaded model and its predictions."""
