"""Whether a model can be asked: looked into before a run.

A run that finds its server gone asks again for about a minute, since a server may be started anew. Where nothing
listens *before* the first branch, waiting would only hide a wrong address: that is told at once. A server that is there
and not well yet (503, no answer) is left to the run's retries.
"""

import sys
from contextlib import suppress
from typing import Any

from ..errors import ConfigError, LeafeError, ModelError
from ..redaction import without_passwords
from .connection import told
from .local.chat_model import LocalChatModel

_CONNECTED = ("CloseError", "ReadError", "ReadTimeout", "RemoteProtocolError", "WriteError", "WriteTimeout")
"""httpx's errors of a connection that was made: somebody listens."""

SOON = 10.0
"""Seconds that a server may take to answer before a run; then the run's own timeout decides."""


def check_model(model: Any) -> None:
    """See whether a model can be asked: a server that is there and knows the model, weights that can be loaded.

    Known are OpenAI-compatible servers and models in this process. One more request with one new token is made where
    the server's list lacks the model: some answer to names that they do not list. It is in no budget.

    Raises:
        ModelError: nothing listens there, or the connection cannot be made.
        ConfigError: the server does not know the model, or refuses the key; weights that cannot be loaded.
    """
    if isinstance(model, LocalChatModel):
        try:
            model.load()
        except LeafeError:
            raise
        except Exception as error:
            what = " with ".join([model.path, *model._adapters])
            said = " ".join(str(error).split())[:400]
            raise ConfigError(f"{what} cannot be loaded: {type(error).__name__}: {said}") from error
        return
    if "langchain_openai" not in sys.modules:
        return
    from langchain_openai import ChatOpenAI

    if isinstance(model, ChatOpenAI):
        clients = getattr(model, "_clients", None) or {"": {"root_client": model.root_client}}
        wrong = [found for each in clients.values() if (found := _wrong(model, each["root_client"]))]
        misled = [each for each in wrong if isinstance(each, ConfigError)]
        if misled or len(wrong) == len(clients):  # one of several that is down is left out while it is
            raise (misled or wrong)[0]


def _wrong(model: Any, client: Any) -> LeafeError | None:
    """What is wrong with a server; None where it is well, or where that cannot be told before it is asked."""
    from openai import APIConnectionError, AuthenticationError, NotFoundError

    if client is None:  # its key is asked for in an event loop
        return None
    url = without_passwords(str(client.base_url).rstrip("/"))
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
    except Exception:  # a status that the run's retries see to, or an answer that is no list of models
        return None
    return None
