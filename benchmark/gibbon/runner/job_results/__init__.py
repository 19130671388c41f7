"""Results of jobs: answers and judged candidates become outcomes, with passes and time."""
