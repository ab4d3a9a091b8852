"""Times as the API writes them; inside, every time is an aware UTC datetime."""

from datetime import UTC, datetime


def now() -> datetime:
    """The current time, UTC, cut to milliseconds as MongoDB keeps it."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def as_text(moment: datetime | None) -> str | None:
    """`YYYY-MM-DD HH:MM:SS.ffffff`, UTC."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def as_epoch(moment: datetime | None) -> float | None:
    """Seconds since 1970, UTC."""
    return None if moment is None else moment.timestamp()
