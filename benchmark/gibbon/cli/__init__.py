"""The command line: options, the grammar from options to a suite, and the commands."""
