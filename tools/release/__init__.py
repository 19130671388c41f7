"""Makes the files of a release besides the packages themselves."""
