"""Proves examples robust after the attacks, and stores the proofs as outcomes are stored."""
