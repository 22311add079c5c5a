"""Building data: quality tags, retrieval, selection, refinement, CoT reconstruction, problems with tests, preference pairs."""
