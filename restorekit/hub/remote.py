"""Files of Hugging Face Hub repositories: cache first, bounded, every failure one plain line."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from restorekit.errors import RestorekitError, UnavailableError

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # the client reads it at its import

_COMMIT = re.compile(r"[0-9a-f]{40}")


def cached(repo: str, file: str, revision: str) -> Path | None:
    """Return a file of the local cache, or None if it was not downloaded yet."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, file, revision=revision)
    return Path(path) if isinstance(path, str) else None


def download(repo: str, file: str, revision: str, *, offline: bool = False) -> Path:
    """Return a file of the local cache, downloaded if need be.

    No request is made for a cached file of a full commit, and none at all offline or under
    HF_HUB_OFFLINE.

    Returns:
        The path, `.../snapshots/COMMIT/FILE`.

    Raises:
        UnavailableError: the file cannot be had.
    """
    with hub_errors(f"{repo}@{revision}"):
        from huggingface_hub import (
            get_hf_file_metadata,
            hf_hub_download,
            hf_hub_url,
            is_offline_mode,
        )

        here = cached(repo, file, revision)
        offline = offline or is_offline_mode()
        if here and (offline or _COMMIT.fullmatch(revision)):
            return here
        if offline:
            raise UnavailableError(
                f"{repo}@{revision}: {file} is not in the local cache and this run is offline; "
                f"run `restorekit models pull {repo}@{revision}` once with a network"
            )
        if not here:  # fails at once where hf_hub_download would retry for minutes
            get_hf_file_metadata(hf_hub_url(repo, file, revision=revision))
        bar = _bounded_bar()
        return Path(hf_hub_download(repo, file, revision=revision, tqdm_class=bar))


def upload(repo: str, files: Mapping[str, bytes | Path], message: str) -> str:
    """Commit files to a repository, made if it does not exist, and return the commit.

    Raises:
        UnavailableError: the Hub refuses or cannot be reached.
    """
    with hub_errors(repo):
        from huggingface_hub import CommitOperationAdd, HfApi

        hub = HfApi()
        hub.create_repo(repo, exist_ok=True)
        additions = [CommitOperationAdd(name, content) for name, content in files.items()]
        return hub.create_commit(repo, additions, commit_message=message).oid


def _bounded_bar() -> type[Any]:
    """Return a progress bar that ends a download which starts over again and again.

    The client resets its count of retries with every byte that arrives, so that a server that
    drops the connection and resumes no transfer would be asked without end.
    """
    from huggingface_hub.utils.tqdm import tqdm

    class BoundedBar(tqdm):
        received = 0.0

        def update(self, n: float | None = 1) -> None:
            self.received += max(n or 0, 0)
            if self.total and self.received > 2 * self.total:
                raise ConnectionError("the connection is lost again and again")
            super().update(n)

    return BoundedBar


@contextmanager
def hub_errors(target: str) -> Iterator[None]:
    """Turn whatever the Hub's client raises into one line, and keep its own log lines quiet."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except RestorekitError:
        raise
    except Exception as error:  # the client also passes on those of its HTTP and transfer libraries
        raise UnavailableError(f"{target}: {_reason(error)}") from error
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "it is gated; ask for access on its page, then log in by `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository on the Hub that you may read"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"no model of restorekit: {error.response.url.path.rsplit('/', 1)[-1]} is missing"
    if isinstance(error, errors.HfHubHTTPError):
        return f"the Hub answers with HTTP status {error.response.status_code}"
    first_line = (str(error).splitlines() or [""])[0]
    return f"the transfer with the Hub failed: {first_line or type(error).__name__}"
