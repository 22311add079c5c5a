"""Pushing a folder to the Hugging Face hub: refused early where it cannot work, and one commit that holds all or nothing."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from nbg_lightning.error_line import first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_STATUS = {
    401: "the hub does not take the token; log in again with `hf auth login`, or set HF_TOKEN",
    403: "the token may not write there; make one with write access to this name's owner, or give another name",
    404: "the hub has no such owner; give NAME or OWNER/NAME of an account or organization that the token belongs to",
    409: "something else of this name is being written; try again",
    429: "the hub asks to wait; try again later",
}
_TOLD = re.compile(r"status (?:client|server) error \((\d{3})")  # of hf_xet, whose errors have no response


class HubError(ValueError):
    """A push that failed, with what the hub has of it, in one line."""


def check_hub(name: str) -> str:
    """The whole name of a repository, after the name, the network and the token have been tried; nothing is changed.

    Args:
        name: ``OWNER/NAME``, or ``NAME`` of the token's account.

    Raises:
        HubError: an invalid name, no token, or a hub that does not answer.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, and exported lazily

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise HubError(f"--push-to-hub is invalid: {name!r}; {first_line(error)}") from None
    if get_token() is None:
        raise HubError("--push-to-hub needs a token; log in with `hf auth login`, or set HF_TOKEN")
    try:
        account = _api().whoami()["name"]
    except Exception as error:
        raise HubError(f"nothing was pushed: {_reason(error)}") from None
    return name if "/" in name else f"{account}/{name}"


def push_folder(folder: Path, name: str, private: bool = False) -> str:
    """Push a folder as a model; the files appear together, in one commit.

    Args:
        folder: with all files.
        name: ``OWNER/NAME``.
        private: of a repository that is made; one that is there stays as it is.

    Returns:
        Where the model is.

    Raises:
        HubError: the hub refuses or is gone; what it has is said, and how to go on.
    """
    again = f"{folder} is whole here; go on with: hf upload {shlex.quote(name)} {shlex.quote(str(folder))}"
    try:
        _api().create_repo(name, private=private, exist_ok=True)
    except Exception as error:
        raise HubError(f"nothing was pushed to {name}: {_reason(error)}; {again}") from None
    try:
        commit = _api().upload_folder(repo_id=name, folder_path=folder, commit_message="Export of nbg_lightning")
    except KeyboardInterrupt:
        raise HubError(f"the push to {name} was interrupted: no file was published; {again}") from None
    except Exception as error:
        raise HubError(
            f"the repository {name} exists, but no file of this export is in it: {_reason(error)}; {again}"
        ) from None
    return str(commit.repo_url)


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="nbg_lightning")


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it to push"
    cause: BaseException | None = error
    while cause is not None:  # huggingface_hub wraps some
        told = _TOLD.search(str(cause))
        status = int(told[1]) if told else None
        if isinstance(cause, HfHubHTTPError) and cause.response is not None:
            status = cause.response.status_code
        if status is not None:
            return f"{_STATUS.get(status, 'the hub refuses it')} (HTTP {status})"
        cause = cause.__cause__
    return f"the hub cannot be reached ({first_line(error)})"
