"""The registered datasets, one file each, and the files and downloads that they read."""
