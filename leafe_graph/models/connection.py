"""The way to a model's server: addresses, round a proxy to this machine, and what failed where, told by name."""

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import ConfigError, MissingDependency
from ..redaction import without_passwords


def checked_url(url: str) -> str:
    """The address, if it is one that a request can be sent to.

    Raises:
        ConfigError: it is not, such as one without http://.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"the model's address is {url!r}; expected http://HOST:PORT/v1 or https://…")
    return url


@contextmanager
def told_setup(spec: str) -> Iterator[None]:
    """Inside, OpenAI's client is made for a model; what it lacks is told in a line.

    Raises:
        ConfigError: there is no key.
        MissingDependency: a proxy is set that needs another package.
    """
    from openai import OpenAIError

    try:
        yield
    except OpenAIError as error:
        raise ConfigError(f"model {spec!r} has no key: set OPENAI_API_KEY, or give api_key= ({error})") from error
    except ImportError as error:
        if "socks" not in str(error).lower():
            raise
        raise MissingDependency(
            f"model {spec!r} would be asked through a SOCKS proxy, as ALL_PROXY or HTTPS_PROXY says, and that needs "
            "another package: pip install socksio, or unset the proxy, or put the host into NO_PROXY",
            needed_for=spec,
        ) from error


def direct(url: str | None) -> dict[str, Any]:
    """The clients of `ChatOpenAI` with which an address of this machine is asked without a proxy.

    Empty for other addresses and where no proxy is set: then the usual clients do.
    """
    if not (url and getproxies() and _on_this_machine(url)):
        return {}
    from langchain_openai import ChatOpenAI
    from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

    clients: dict[str, Any] = {
        "http_client": DefaultHttpxClient(trust_env=False),
        "http_async_client": DefaultAsyncHttpxClient(trust_env=False),
    }
    if "http_socket_options" in ChatOpenAI.model_fields:  # else it warns that it would set some on these clients
        clients["http_socket_options"] = ()
    return clients


def told(error: BaseException, model: Any = None) -> str:
    """An error in words: where the connection went to and through which proxy, where it is one of a connection.

    Without the passwords of addresses: it is logged.
    """
    said = without_passwords(f"{type(error).__name__}: {error}")
    url = getattr(_attribute(error, "request"), "url", None)
    if url is None or getattr(error, "status_code", None) is not None:
        return said
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    why = f": {cause}" if str(cause) and cause is not error else ""
    ours = getattr(model, "http_client", None) is not None  # then what the environment says is not asked
    return f"{said} ({without_passwords(str(url))}{why}){'' if ours else through_proxy(str(url))}"


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def through_proxy(url: str) -> str:
    """A sentence's end with the proxy and its variable, where requests for this address go through one; else empty."""
    parts = urlsplit(url)
    proxies = getproxies()
    kind = next((kind for kind in (parts.scheme, "all") if kind in proxies), None)
    if kind is None or proxy_bypass(parts.netloc):
        return ""
    name = next((each for each in (f"{kind}_proxy", f"{kind}_proxy".upper()) if os.environ.get(each)), f"{kind} proxy")
    return f" through the proxy {_shown(proxies[kind])} of {name}: unset that, or put the host into NO_PROXY"


def _shown(proxy: str) -> str:
    """A proxy's address without user and password."""
    parts = urlsplit(proxy)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.hostname else proxy


def _attribute(error: BaseException, name: str) -> Any:
    """An attribute that may be a property that raises, as httpx's ``request`` does."""
    try:
        return getattr(error, name, None)
    except RuntimeError:
        return None
