"""Final answers as values: one bounded grammar reads them (`reader`, with limits in `limits`), `compare` defines equality."""
