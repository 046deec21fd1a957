"""Secrets are taken out of what is recorded, and nothing else is."""

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafe_graph import ConfigError, RunFolder
from leafe_graph.redaction import REDACTED, redacted, redactor, without_passwords
from leafe_graph.tree.run_settings import RunSettings


def made_up(length: int, letters: str = string.ascii_letters + string.digits, seed: int = 0) -> str:
    """Characters as keys have them, the same ones every time; so no scanner takes this file for one with keys."""
    return "Zq7" + "".join(random.Random(seed).choices(letters, k=length - 3))


HEX = "0123456789abcdef"
KEYS = {
    "AWS": "AKIA" + made_up(16, string.ascii_uppercase + string.digits).upper(),
    "GitHub": "ghp_" + made_up(36),
    "GitHub, fine-grained": "github_pat_" + made_up(22) + "_" + made_up(59),
    "GitLab": "glpat-" + made_up(20),
    "OpenAI": "sk-" + made_up(48),
    "OpenAI, project": "sk-proj-" + made_up(40) + "-" + made_up(60) + "_" + made_up(20),
    "Anthropic": "sk-ant-api03-" + made_up(93) + "-" + "AA",
    "OpenRouter": "sk-or-v1-" + "".join(random.Random(1).choices(HEX, k=64)),
    "Groq": "gsk_" + made_up(52),
    "Hugging Face": "hf_" + made_up(34),
    "LangSmith": "lsv2_pt_" + "".join(random.Random(2).choices(HEX, k=32)) + "_" + "0123456789",
    "Google": "AIza" + made_up(35),
    "Slack": "xoxb-" + "123456789012-" + made_up(24),
    "Stripe": "sk_live_" + made_up(24),
    "SendGrid": "SG." + made_up(22) + "." + made_up(43),
    "npm": "npm_" + made_up(36),
    "PyPI": "pypi-AgE" + made_up(80),
    "Telegram": "1234567890:AA" + made_up(33),
    "JWT": "eyJ" + made_up(30) + ".eyJ" + made_up(60) + "." + made_up(43),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("around", ["{}", "the key is {}.", 'x = "{}"', "curl -H 'x-key: {}' /", "a={}&b=1", "({})"])
def test_keys_are_known_by_their_looks(key: str, around: str) -> None:
    """Wherever they stand, and what is around them stays."""
    assert redacted(around.format(key)) == around.format(REDACTED)


PASSWORD = "hunter2-Blue"


@pytest.mark.parametrize(
    "text",
    [
        "DB_PASSWORD={}",
        "export STRIPE_SECRET_KEY='{}'",
        "OPENAI_API_KEY: {}",
        "HOME=/root\nPGPASSWORD={}\nPATH=/bin",
        'password = "{}"',
        '{{"user": "ann", "password": "{}", "age": 7}}',
        '"{{\\"api_key\\": \\"{}\\"}}"',
        "config['client_secret'] = '{}'",
        "user: ann\npassword: {}\n",
        "[db]\npassword = {}\n",
        "postgres://ann:{}@db.local:5432/shop",
        "redis://:{}@cache/0",
        "mysql --user ann --password {} shop",
        "tool --api-key={}",
        "dbPassword: '{}'",
        'apiKey: "{}",',
    ],
)
def test_what_a_name_says_is_a_password_is_one(text: str) -> None:
    """In shells, files of settings, JSON within JSON, code, addresses and flags."""
    assert redacted(text.format(PASSWORD)) == text.format(REDACTED)


def test_headers_and_blocks() -> None:
    """Authorization, and private keys, also one that was cut short."""
    token = made_up(30)
    assert redacted(f"Authorization: Bearer {token}\nAccept: */*") == f"Authorization: Bearer {REDACTED}\nAccept: */*"
    assert redacted(f'{{"Authorization": "Basic {token}=="}}') == f'{{"Authorization": "Basic {REDACTED}"}}'
    block = "-----BEGIN RSA PRIVATE KEY-----\n" + made_up(64) + "\n"
    assert redacted(f"a\n{block}-----END RSA PRIVATE KEY-----\nb") == f"a\n{REDACTED}\nb"
    assert redacted(f"a\n{block}") == f"a\n{REDACTED}"


@pytest.mark.parametrize(
    "text",
    [
        "commit 8f14e45fceea167a5a36dedd4bea2543f1c9b7aa",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "id 123e4567-e89b-12d3-a456-426614174000",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
        "tokens = tokenizer(text); token = tokens[0]",
        "max_tokens=200, completion_tokens: 17",
        "password = getpass.getpass()",
        'API_KEY = os.environ["API_KEY"]',
        "token=${TOKEN} password=$PASSWORD SECRET_KEY=${{ secrets.KEY }}",
        "def login(user: str, password: str) -> None:",
        "self.secret = secret",
        'parser.add_argument("--password", help="the password to use")',
        '{"type": "object", "properties": {"password": {"type": "string"}, "token": {"type": "string"}}}',
        '{"token": "hello", "next_page_token": null}',
        "https://example.com:8080/path@2x.png",
        "git@github.com:owner/name.git ssh://git@host/x",
        "import secrets; secrets.token_hex(16)",
        "the secret is to keep going; password reset was sent",
        "the bearer of good news was authorization by committee",
        '<div class="sk-estimator-id-1 sk-toggleable__content-long-name">',
        "AUTHOR=ann KEYBOARD=us MONKEY=banana1 PASSED=12 TOKENS=99999",
        "public_key: ed25519",
        "api_key: <your key> password=YOUR_PASSWORD secret: xxxx",
        "x = sk_live_test\nask-for-the-thing-that-is-needed-1",
        "assert token == 'abc'",
        "SELECT password FROM users WHERE token = 'short'",
        "if token := next(tokens, None):",
    ],
)
def test_hashes_ids_and_code_are_no_secrets(text: str) -> None:
    """A record that lost them would be of no use."""
    assert redacted(text) == text


def test_json_keeps_its_shape() -> None:
    """Messages with calls and results as they are recorded."""
    key = KEYS["GitHub"]
    given: dict[str, Any] = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": f"use {key}"}, {"type": "image", "n": 1.5}]},
            {"role": "assistant", "tool_calls": [{"function": {"name": "login", "arguments": {"password": PASSWORD}}}]},
            {"role": "tool", "content": json.dumps({"access_token": PASSWORD, "ok": True, "none": None})},
        ],
        "tools": [{"parameters": {"properties": {"password": {"type": "string", "description": "the password"}}}}],
        "token": ["a", 1],
    }
    told = redacted(given)
    assert told["messages"][0]["content"] == [{"type": "text", "text": f"use {REDACTED}"}, {"type": "image", "n": 1.5}]
    assert told["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"password": REDACTED}
    assert json.loads(told["messages"][2]["content"]) == {"access_token": REDACTED, "ok": True, "none": None}
    assert (told["tools"], told["token"]) == (given["tools"], ["a", 1])
    assert (
        redacted(told) == told
        and given["messages"][1]["tool_calls"][0]["function"]["arguments"]["password"] == PASSWORD
    )


def test_values_of_the_environment_are_secrets_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose names say so: a tool may print them without the name."""
    monkeypatch.setenv("SHOP_API_KEY", "correct horse")
    monkeypatch.setenv("SHOP_NAME", "battery staple")
    assert redacted("correct horse battery staple") == f"{REDACTED} battery staple"
    monkeypatch.setenv("SHOP_API_KEY", "short")
    assert redacted("in short") == "in short"


def test_a_function_of_ones_own_comes_last() -> None:
    """And a setting turns all of it off."""
    text = f"ann has {KEYS['npm']}"
    assert redacted([text], lambda each: each.replace("ann", "someone")) == [f"someone has {REDACTED}"]
    assert redactor(lambda each: each.upper())({"a": text}) == {"a": f"ANN HAS {REDACTED.upper()}"}
    assert redactor(True)(text) == f"ann has {REDACTED}" and redactor(False)(text) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(value=JSON)
def test_any_json_stays_json_of_the_same_shape(value: Any) -> None:
    """And done twice it is the same."""

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shape(held) for name, held in value.items()}
        return [shape(each) for each in value] if isinstance(value, list) else type(value)

    told = redacted(value)
    assert shape(told) == shape(value) and redacted(told) == told


def test_settings_are_kept_without_the_passwords_in_addresses(tmp_path: Path) -> None:
    """A run's, also one that an earlier release began with them; another password is no other setting."""
    told = {"base_url": "http://me:hunter22@host:8000/v1", "model": ["vllm:q@http://me:hunter22@host/v1"]}
    known = without_passwords(told)
    assert known == {
        "base_url": f"http://me:{REDACTED}@host:8000/v1",
        "model": [f"vllm:q@http://me:{REDACTED}@host/v1"],
    }
    assert without_passwords({"n": 1, "url": "http://host:8000/v1"}) == {"n": 1, "url": "http://host:8000/v1"}
    file = tmp_path / "run" / "config.json"
    for password in ("hunter22", "correct8horse"):
        settings = RunSettings(model=f"vllm:q@http://me:{password}@host/v1").saved()
        with RunFolder(tmp_path / "run").open(settings):
            assert password not in file.read_text()
    file.write_text(file.read_text().replace(REDACTED, "hunter22"))
    with RunFolder(tmp_path / "run").open(settings):
        pass
    with pytest.raises(ConfigError, match="other settings") as refused:
        RunFolder(tmp_path / "run").open(RunSettings(model="vllm:q@http://me:hunter22@other/v1").saved())
    assert "hunter22" not in str(refused.value)
