"""Solutions with reasoning: drafts refined, chains of thought reconstructed, and data of the model that completes them."""
