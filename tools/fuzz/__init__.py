"""Fuzzing of the files that Gibbon reads: mutates a corpus, and looks for anything but a sentence.

``python -m tools.fuzz`` is what ``make fuzz`` runs.  The corpus is in ``tests/fuzz/corpus/``.
"""
