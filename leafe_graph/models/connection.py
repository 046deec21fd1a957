"""The way to a model's server: round a proxy to this machine, told by name where it fails, and tried before a run.

A run that finds its server gone asks again for about a minute, since a server may be started anew. Where nothing
listens *before* the first branch, waiting would only hide a wrong address: that is told at once. A server that is there
and not well yet (503, no answer) is left to the run's retries.
"""

import ipaddress
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import ConfigError, LeafeError, MissingDependency, ModelError

_CONNECTED = ("CloseError", "ReadError", "ReadTimeout", "RemoteProtocolError", "WriteError", "WriteTimeout")
"""httpx's errors of a connection that was made: somebody listens."""

SOON = 10.0
"""Seconds that a server may take to answer before a run; then the run's own timeout decides."""


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
    """An error in words: where the connection went to and through which proxy, where it is one of a connection."""
    said = f"{type(error).__name__}: {error}"
    url = getattr(_attribute(error, "request"), "url", None)
    if url is None or getattr(error, "status_code", None) is not None:
        return said
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    why = f": {cause}" if str(cause) and cause is not error else ""
    ours = getattr(model, "http_client", None) is not None  # then what the environment says is not asked
    return f"{said} ({url}{why}){'' if ours else through_proxy(str(url))}"


def check_model(model: Any) -> None:
    """See whether a model can be asked: a server that is there and knows the model, weights that can be loaded.

    Known are OpenAI-compatible servers and models in this process. One more request with one new token is made where
    the server's list lacks the model: some answer to names that they do not list. It is in no budget.

    Raises:
        ModelError: nothing listens there, or the connection cannot be made.
        ConfigError: the server does not know the model, or refuses the key; weights that cannot be loaded.
    """
    from .local.chat_model import LocalChatModel

    if isinstance(model, LocalChatModel):
        try:
            model.load()
        except LeafeError:
            raise
        except Exception as error:
            raise ConfigError(f"the model cannot be loaded: {type(error).__name__}: {error}") from error
        return
    if "langchain_openai" not in sys.modules:
        return
    from langchain_openai import ChatOpenAI

    if isinstance(model, ChatOpenAI):
        clients = getattr(model, "_clients", None) or {"": {"root_client": model.root_client}}
        wrong = [found for each in clients.values() if (found := _wrong(model, each["root_client"]))]
        if len(wrong) == len(clients):  # one of several that is down is left out while it is
            raise wrong[0]


def _wrong(model: Any, client: Any) -> LeafeError | None:
    """What is wrong with a server; None where it is well, or where that cannot be told before it is asked."""
    from openai import APIConnectionError, APIStatusError, AuthenticationError, NotFoundError

    url = str(client.base_url).rstrip("/")
    client = client.with_options(timeout=SOON, max_retries=0)
    name = model.model_name
    listed: list[str] = []
    try:
        with suppress(NotFoundError):  # an address without a list, or a wrong one
            listed = [str(each.id) for each in client.models.list()]
        if name not in listed:
            client.chat.completions.create(model=name, messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
    except APIConnectionError as error:
        if type(error.__cause__).__name__ in _CONNECTED:
            return None
        return ModelError(f"the server of {name} cannot be reached: {told(error, model)}")
    except AuthenticationError as error:
        if "scope" in str(error):  # a key that may not list models
            return None
        return ConfigError(f"{url} refuses the key ({error}): set OPENAI_API_KEY, or give the model api_key=")
    except NotFoundError as error:
        known = f"it serves {', '.join(listed[:10])}{', …' if len(listed) > 10 else ''}" if listed else str(error)
        return ConfigError(f"{url} does not know the model {name!r}: {known}")
    except APIStatusError:
        return None
    except Exception:  # an answer that is no list of models
        return None
    return None


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
