"""Where a user may put files of their own: under one prefix of the platform's bucket, and nowhere else."""

from urllib.parse import quote

from services.common.errors import BadRequest, Forbidden

DEFAULT_FILE = "aigc.json"
LONGEST_KEY = 512
SHOWN = 80


def own_prefix(username: str) -> str:
    """The user's folder; names that would be another path are written with percent signs."""
    folder = quote(username, safe=" @+,=:~!$'()*")
    return f"config/{folder.replace('.', '%2E') if not folder.strip('.') else folder}/"


def place_of(username: str, key: str | None, bucket: str | None, own_bucket: str) -> str:
    """The key that the user may PUT to. Raises BadRequest and Forbidden, which say what would be right."""
    if bucket and bucket != own_bucket:
        raise Forbidden(
            f'files are put into the bucket "{own_bucket}" only, not "{bucket[:SHOWN]}": '
            "leave s3_bucket_name out"
        )
    prefix = own_prefix(username)
    if not key:
        return prefix + DEFAULT_FILE
    if not _is_plain(key):
        raise BadRequest(
            f'key "{_printable(key)}" is not a plain path as "{prefix}{DEFAULT_FILE}": '
            f'at most {LONGEST_KEY} bytes, segments joined by single slashes, none of them "." or "..", '
            "no backslash, no control character"
        )
    if not key.startswith(prefix):
        raise Forbidden(
            f'key "{_printable(key)}" is not yours: it must begin with "{prefix}", '
            f'as "{prefix}{DEFAULT_FILE}"'
        )
    return key


def _is_plain(key: str) -> bool:
    segments = key.split("/")
    return (
        len(key.encode()) <= LONGEST_KEY
        and key.isprintable()
        and "\\" not in key
        and all(segment.strip() and segment not in {".", ".."} for segment in segments)
    )


def _printable(text: str) -> str:
    shown = "".join(sign if sign.isprintable() else "?" for sign in text)
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 3] + "..."
