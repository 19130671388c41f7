"""Gibbon: an adversarial-robustness benchmark harness for PyTorch."""
