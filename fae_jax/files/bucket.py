"""Google Cloud Storage by gcsfs: every error is one of Python's own, in one line, and no listing is kept."""

from __future__ import annotations

import logging
import re
from typing import Any

import aiohttp
import google.auth.exceptions
import requests.exceptions
from gcsfs.core import GCSFileSystem
from gcsfs.retry import HttpError

for _name in ("gcsfs", "google.auth"):  # they log what they raise as well, with its stack
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Buckets(GCSFileSystem):
    """What `gs://` stands for. Listings are not kept: other hosts write too."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"use_listings_cache": False, **kwargs})

    async def _request(self, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        """One request, tried again by gcsfs for half a minute.

        Raises:
          FileNotFoundError: no such object, or no such bucket.
          FileExistsError: the object has another generation than was asked for.
          PermissionError: the service refuses.
          ConnectionError: it does not answer.
        """
        try:
            return await super()._request(method, path, *args, **kwargs)
        except FileNotFoundError as error:
            url = self._format_path(path, args)
            if url.split("?")[0].endswith("/o"):  # a listing or an upload: not the object is missing, but the bucket
                raise FileNotFoundError(
                    f"bucket {_bucket(url)} does not exist; make it first, or correct the path"
                ) from error
            raise
        except (
            OSError,
            HttpError,
            google.auth.exceptions.GoogleAuthError,
            requests.exceptions.RequestException,
        ) as e:
            raise _explained(e, _bucket(self._format_path(path, args))) from e

    async def _isdir(self, path: str) -> bool:
        try:
            return (await self._info(path))["type"] == "directory"
        except FileNotFoundError:  # gcsfs takes a server that does not answer for a folder that is not there
            return False


def _bucket(url: str) -> str:
    match = re.search(r"/b/([^/?]+)", url)
    return f"gs://{match[1]}" if match else "gs://"


def _explained(error: Exception, bucket: str) -> Exception:
    text = " ".join(str(error).split())[:200]
    if isinstance(error, FileExistsError):
        return error
    if str(error).startswith("Forbidden"):  # gcsfs looks for that word as well
        return PermissionError(
            f"Forbidden: {bucket} refuses this account; give it the role Storage Object User there ({text})"
        )
    if getattr(error, "code", None) == 401 or isinstance(error, google.auth.exceptions.GoogleAuthError):
        return PermissionError(
            f"{bucket} does not know who asks ({text}); log in with `gcloud auth application-default login`, or name "
            "a key in GOOGLE_APPLICATION_CREDENTIALS"
        )
    if isinstance(error, aiohttp.ClientError | requests.exceptions.RequestException | TimeoutError):
        return ConnectionError(f"{bucket} does not answer ({text or type(error).__name__})")
    return error if isinstance(error, OSError) else OSError(f"{bucket}: {text or type(error).__name__}")
