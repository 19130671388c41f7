"""Names of the files and folders that a report writes.  Nothing is imported."""

from __future__ import annotations

from typing import Final

TABLES_FILE: Final = "tables.md"
CONFIDENCE_FILE: Final = "confidence.csv"
EVALUATIONS_FILE: Final = "evaluations.csv"
TRANSFER_FILE: Final = "transfer.csv"
WORST_CASE_FILE: Final = "worst_case.csv"
AGREEMENT_FILE: Final = "agreement.csv"
# Written if an attack of the run is a list of others.
MEMBERS_FILE: Final = "members.csv"
# Written if a bound was computed or requested.
BOUNDS_FILE: Final = "bounds.csv"
# Written if there are at least two models to compare, and if models differ in their seed.
COMPARISONS_FILE: Final = "model_comparisons.csv"
SEEDS_FILE: Final = "training_seeds.csv"
# Written if a dataset has inputs without a class; the last if fooling images were requested.
NO_CLASS_FILE: Final = "no_class.csv"
NO_CLASS_CLASSES_FILE: Final = "no_class_classes.csv"
FOOLING_FILE: Final = "fooling.csv"
# Written if the suite has published numbers, and if it has claims that were tested.
PUBLISHED_FILE: Final = "published.csv"
CLAIMS_FILE: Final = "claims.csv"

# Those that a run may lack.
OPTIONAL_FILES: Final = (
    *(BOUNDS_FILE, MEMBERS_FILE, COMPARISONS_FILE, SEEDS_FILE, CONFIDENCE_FILE),
    *(NO_CLASS_FILE, NO_CLASS_CLASSES_FILE, FOOLING_FILE, PUBLISHED_FILE, CLAIMS_FILE),
)
TEXT_FILES: Final = (
    *(EVALUATIONS_FILE, TRANSFER_FILE, WORST_CASE_FILE, AGREEMENT_FILE, TABLES_FILE),
    *OPTIONAL_FILES,
)

TENSORBOARD_FOLDER: Final = "tensorboard"

# TensorBoard reads files with "tfevents" in their name; the rest identifies files of ours.
EVENTS_FILE: Final = "events.out.tfevents.gibbon"

CELLS_FOLDER: Final = "tensorboard_cells"
