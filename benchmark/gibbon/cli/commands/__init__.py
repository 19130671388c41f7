"""Commands, one file each: arguments, and the call of what does the work."""
