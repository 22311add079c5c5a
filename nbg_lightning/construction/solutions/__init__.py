"""Solutions with reasoning: refinement of drafts, CoT reconstruction, and training data for the chain-completion model."""
