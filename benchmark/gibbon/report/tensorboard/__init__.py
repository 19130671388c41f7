"""The results of a run as TensorBoard event files."""
