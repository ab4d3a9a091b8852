"""Where imported files come from: links of model sites, redirects, tokens, file names."""

import email.message
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urljoin, urlsplit, urlunsplit

import requests

from services.common.guard import GuardedSession, check_url

MOST_REDIRECTS = 5
HEADER_SECONDS = 60.0
READ_SECONDS = 30.0
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class SourceRefused(Exception):
    """The source does not give the file, and asking again will not help; the text says why."""


@dataclass(frozen=True)
class Opened:
    """A source that has begun to answer."""

    response: requests.Response
    name: str
    start: int  # the first byte that it sends
    size: int | None  # of the whole file
    etag: str | None


def direct_link(url: str) -> str:
    """The address of the file behind a link as people copy it from Hugging Face and Civitai."""
    split = urlsplit(url)
    host = (split.hostname or "").removeprefix("www.")
    if host in {"huggingface.co", "hf.co"}:
        return urlunsplit(split._replace(path=re.sub(r"/blob/", "/resolve/", split.path, count=1)))
    version = parse_qs(split.query).get("modelVersionId")
    if host == "civitai.com" and split.path.startswith("/models/") and version:
        return f"https://civitai.com/api/download/models/{version[0]}"
    return url


def open_source(
    session: GuardedSession, url: str, tokens: Mapping[str, str], start: int = 0, etag: str | None = None
) -> Opened:
    """Ask for the file from byte `start` on, through redirects.

    Raises RefusedAddress, SourceRefused, and requests.RequestException or OSError for what may pass.
    """
    address = direct_link(url)
    for _ in range(MOST_REDIRECTS + 1):
        check_url(address)
        with session.at_most(HEADER_SECONDS):
            response = session.get(
                address,
                headers=_headers(address, tokens, start, etag),
                stream=True,
                allow_redirects=False,
                timeout=READ_SECONDS,
            )
        if response.status_code not in REDIRECTS:
            return _opened(response, url, address, start)
        response.close()
        address = urljoin(address, response.headers.get("Location", ""))
    raise SourceRefused(f"it redirects more than {MOST_REDIRECTS} times")


def host_of(address: str) -> str:
    """The host as tokens are kept for it."""
    return (urlsplit(address).hostname or "").removeprefix("www.")


def _headers(address: str, tokens: Mapping[str, str], start: int, etag: str | None) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity", "User-Agent": "sdfleet"}
    token = tokens.get(host_of(address))
    if token and urlsplit(address).scheme == "https":
        headers["Authorization"] = f"Bearer {token}"
    if start:
        headers["Range"] = f"bytes={start}-"
        if etag:
            headers["If-Range"] = etag
    return headers


def _opened(response: requests.Response, url: str, address: str, start: int) -> Opened:
    status = response.status_code
    if status in {408, 429} or status >= 500:
        response.close()
        raise requests.HTTPError(f"it answers {status}")
    if status not in {200, 206}:
        response.close()
        raise SourceRefused(f"it answers {status}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        response.close()
        raise SourceRefused("it answers in a compressed form, which was not asked for")
    etag = response.headers.get("ETag")
    length = response.headers.get("Content-Length", "")
    size = int(length) if length.isdigit() else None
    if status == 206:
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if part is None or int(part[1]) != start:
            response.close()
            raise SourceRefused("it answers another range than was asked for")
        return Opened(response, _name(response, url, address), start, int(part[2]), etag)
    return Opened(response, _name(response, url, address), 0, size, etag)


def _name(response: requests.Response, url: str, address: str) -> str:
    """The file's name: what the server says, else the end of the link, else of where it led."""
    message = email.message.Message()
    message["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    said = message.get_filename()
    if said:
        return PurePosixPath(said.replace("\\", "/")).name
    names = [unquote(urlsplit(one).path.rpartition("/")[2]) for one in (url, address)]
    return next((name for name in names if "." in name), names[0])
