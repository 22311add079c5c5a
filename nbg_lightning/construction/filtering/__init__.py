"""Filtering a corpus: quality tags, recall, duplicates, decontamination, and the selection of a mixture."""
