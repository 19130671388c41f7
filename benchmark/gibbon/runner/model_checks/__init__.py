"""Examines models before their attacks, at candidates afterwards, and attacks survivors again."""
