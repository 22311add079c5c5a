"""Corpus filtering: quality tags, recall, deduplication, decontamination, and the selection of a mixture."""
