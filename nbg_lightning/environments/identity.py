"""Identity of environments and rewards, so that results of one are never reused for another."""

from __future__ import annotations

import hashlib
import pickle
import uuid


def identity_of(thing: object) -> str:
    """The class of an environment or a reward and a digest of its state; functions are identified by name.

    An object that cannot be pickled has a different identity in each run, so that its results are never reused.
    """
    name = f"{type(thing).__module__}.{type(thing).__qualname__}"
    try:
        content = pickle.dumps(thing)
    except Exception:
        return f"{name} {uuid.uuid4().hex}"
    return f"{name} {hashlib.blake2b(content, digest_size=8).hexdigest()}"
