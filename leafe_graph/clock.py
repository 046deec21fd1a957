"""When something happened, as it is saved: seconds since 1970 by the machine's clock, to the microsecond."""

import time

from .types import Time


def now() -> float:
    """This moment."""
    return round(time.time(), 6)


def since(started: float) -> Time:
    """From a moment that `now` gave until this one."""
    return Time(started=started, ended=now())
