"""The trust boundary: attacks propose candidates, and `judge` decides which are adversarial."""
