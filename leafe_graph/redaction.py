"""Secrets: what is recorded of tools, files and databases passes here before it is logged, exported or shown.

What looks like a key or token, what a name says is a password, and the values of this process's environment variables
that have such names. It finds what is written as secrets usually are, not every secret: see to it that tools print
none.
"""

import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

Value = TypeVar("Value")

REDACTED = "[redacted]"
"""What stands in a secret's place, always the same: equal texts stay equal, and done twice it is the same."""

_TOKENS = re.compile(
    r"""(?<![A-Za-z0-9_])(?:
    (?:AKIA|ASIA)[0-9A-Z]{16}                                        # AWS
    | gh[pousr]_[A-Za-z0-9]{36,} | github_pat_\w{22,}                # GitHub
    | gl(?:pat|dt|rt|cbt)-[\w-]{20,}                                 # GitLab
    | sk-or-v1-[0-9a-f]{64}                                          # OpenRouter
    | sk-(?=[\w-]{0,80}\d)(?=[\w-]{0,80}[A-Z])[\w-]{20,}                       # OpenAI, Anthropic, DeepSeek and others
    | gsk_[A-Za-z0-9]{40,} | xai-[A-Za-z0-9]{60,} | pplx-[A-Za-z0-9]{40,} | r8_[A-Za-z0-9]{36,} | nvapi-[\w-]{40,}
    | hf_[A-Za-z0-9]{30,}                                            # Hugging Face
    | lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}                       # LangSmith
    | tvly-(?=[\w-]{0,99}\d)[\w-]{20,}                                    # Tavily
    | AIza[\w-]{35} | ya29\.[\w-]{20,} | GOCSPX-[\w-]{20,}           # Google
    | xox[abeoprs]-[A-Za-z0-9-]{10,} | xapp-\d-[A-Za-z0-9-]{10,}     # Slack
    | (?:[sr]k|pk)_(?:live|test)_[A-Za-z0-9]{16,} | whsec_[A-Za-z0-9+/=]{24,}  # Stripe
    | SG\.[\w-]{22}\.[\w-]{43}                                       # SendGrid
    | npm_[A-Za-z0-9]{36} | pypi-AgE[\w-]{50,}
    | dop_v1_[0-9a-f]{64} | dapi[0-9a-f]{32} | dckr_pat_[\w-]{20,}
    | \d{8,10}:AA[\w-]{33}                                           # Telegram
    | eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}                       # JSON Web Tokens
    )(?![A-Za-z0-9])""",
    re.VERBOSE,
)
_BLOCKS = re.compile(
    r"-----BEGIN (?P<kind>[A-Z ]*PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END (?P=kind)-----|\Z)", re.DOTALL
)
_SLACK = re.compile(r"(?P<keep>https://hooks\.slack\.com/services/)(?P<secret>[\w/]{20,})")
_ADDRESS = re.compile(r"(?P<keep>://[^\s/:@'\"<>]{0,80}:)(?P<secret>[^\s/@'\"<>]+)(?=@)")
_HEADER = re.compile(
    r"(?i)(?P<keep>\b(?:authorization\\*['\"]?\s*[:=]\s*\\*['\"]?(?:bearer|basic|token)|bearer)\s+)"
    r"(?P<secret>(?=[\w.~+/-]{0,80}\d)[\w.~+/-]{16,}=*)"
)

_STRONG = (
    r"pass(?:word|wd|phrase)|secret(?:[_-]?key)?|(?:api|access|private|signing|encryption|account|master|service)[_-]?key"
    r"|(?:auth|access|refresh|bearer|session|id|bot|personal[_-]?access)[_-]?token|client[_-]?secret|credentials?"
)
_WEAK = r"token|pwd|auth"
"""These name other things, too: what they name is a secret if it looks like one."""
_NAME = re.compile(rf"(?i).*?(?:(?P<strong>{_STRONG})|{_WEAK})(?:[_-]?\d+)?")
_QUOTED = re.compile(
    rf"(?i)(?P<keep>(?P<name>{_STRONG}|{_WEAK})(?:_?\d+)?\\*['\"]?\]?\s*(?::|=|=>|:=)\s*"
    r"[furb]{0,2}(?P<quote>\\*['\"]))(?P<secret>[^\s'\"\\]+)(?=(?P=quote))"
)
_ASSIGNED = re.compile(  # .env, a shell, a container's environment
    rf"(?P<keep>(?P<name>{_STRONG.upper()}|{_WEAK.upper()})(?:_?\d+)?(?:=|:[ ]))"
    r"(?P<secret>[^\s'\",;()\[\]{}<>$*]+)(?![\w(\[.{])"
)
_LINE = re.compile(  # YAML, ini
    rf"(?im)(?P<keep>^[ \t-]*(?P<name>[a-z0-9_.-]{{0,40}}?(?:{_STRONG}))(?:=|:[ \t]+|[ \t]=[ \t]))"
    r"(?P<secret>(?=\S{0,99}\d)[^\s'\",;()\[\]{}<>$*]+)[ \t]*\r?$"
)
_FLAG = re.compile(
    rf"(?i)(?P<keep>(?<!\S)--(?P<name>[a-z0-9-]{{0,40}}?(?:{_STRONG}|{_WEAK}))(?:=|\s+))"
    r"(?P<secret>[^\s'\"$<>-][^\s'\"<>]*)"
)
_NAMED = (_QUOTED, _ASSIGNED, _LINE, _FLAG)
_WORDS = ("pass", "secret", "key", "token", "pwd", "auth", "credential")
"""Without one of these nothing is named so: most texts are short of them, and looking for names takes longest."""
_PLAIN = re.compile(
    r"(?i)\[redacted.*|x+|\*+|\.+|-+|none|null|true|false|str(?:ing)?|int|bytes|any|password|passwd|secret|token|change_?me|"
    r"your.*|my.*|.*example.*|.*placeholder.*|<.*|\$.*|\{.*|%.*|\d{1,5}"
)
"""What stands where a secret would."""


def redacted(value: Value, also: Callable[[str], str] | None = None) -> Value:
    """The same value with `REDACTED` for each secret in its texts.

    Args:
        value: anything that JSON has; names in objects stay, and so does its shape.
        also: what else is to be done to each text, after all this.
    """
    return cast(Value, _Redaction(also).value(value))


def redactor(setting: bool | Callable[[str], str]) -> Callable[[Any], Any]:
    """What a setting asks for: True, `redacted`; False, nothing; a function of a text, `redacted` with it."""
    if setting is False:
        return lambda value: value
    return lambda value: redacted(value, None if setting is True else setting)


def without_passwords(value: Value) -> Value:
    """The same value without the passwords in its addresses, ``https://USER:PASSWORD@HOST``: settings are kept so."""
    if isinstance(value, str):
        return cast(Value, _ADDRESS.sub(lambda found: found["keep"] + _hidden(found["secret"]), value))
    if isinstance(value, Mapping):
        return cast(Value, {name: without_passwords(held) for name, held in value.items()})
    return cast(Value, [without_passwords(each) for each in value]) if isinstance(value, list) else value


class _Redaction:
    """One value's; the environment is looked at once."""

    def __init__(self, also: Callable[[str], str] | None) -> None:
        self.also = also
        known = sorted(
            (held for name, held in os.environ.items() if _secret(name, held) and len(held) >= 8), key=len, reverse=True
        )
        self.known = re.compile("|".join(map(re.escape, known))) if known else None

    def value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self.named(name, held) for name, held in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(self.value, value)) if type(value) in (list, tuple) else [*map(self.value, value)]
        return value

    def named(self, name: object, held: Any) -> Any:
        if isinstance(held, str) and isinstance(name, str) and not re.search(r"\s", held) and _secret(name, held):
            return REDACTED
        return self.value(held)

    def text(self, text: str) -> str:
        if self.known:
            text = self.known.sub(REDACTED, text)
        text = _TOKENS.sub(REDACTED, _BLOCKS.sub(REDACTED, text))
        for pattern in (_SLACK, _ADDRESS, _HEADER):
            text = pattern.sub(lambda found: found["keep"] + _hidden(found["secret"]), text)
        lower = text.lower()
        if any(word in lower for word in _WORDS):
            for pattern in _NAMED:
                text = pattern.sub(_named, text)
        return self.also(text) if self.also else text


def _named(found: re.Match[str]) -> str:
    secret = found["secret"]
    hidden = REDACTED if _secret(found["name"], secret) else secret
    return found["keep"] + hidden + found[0][len(found["keep"]) + len(secret) :]


def _hidden(secret: str) -> str:
    return secret if _PLAIN.fullmatch(secret) else REDACTED


def _secret(name: str, value: str) -> bool:
    """Whether what has this name is a secret, by its name, and where that may name other things, by its looks."""
    strong = _strong(name)
    if strong is None or not value or _PLAIN.fullmatch(value):
        return False
    return strong or (len(value) >= 16 and bool(re.search(r"\d", value)) and bool(re.search(r"[A-Za-z]", value)))


@lru_cache(4096)
def _strong(name: str) -> bool | None:
    """Whether what has this name is always a secret; None: never."""
    found = _NAME.fullmatch(name)
    return found and bool(found["strong"])
