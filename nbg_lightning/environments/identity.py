"""What an environment was made with, so that results of another are not taken for its own."""

from __future__ import annotations

import hashlib
import pickle
import uuid


def identity_of(thing: object) -> str:
    """The class of an environment or a reward and a digest of its state; functions stand for themselves by their names.

    What cannot be pickled has another identity in each run, so that nothing of it is used again.
    """
    name = f"{type(thing).__module__}.{type(thing).__qualname__}"
    try:
        content = pickle.dumps(thing)
    except Exception:
        return f"{name} {uuid.uuid4().hex}"
    return f"{name} {hashlib.blake2b(content, digest_size=8).hexdigest()}"
