"""Settings: read from the environment, refused in one sentence, documented as declared."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from pipeline import build
from settings import BadSetting, Settings, table, variable

ROOT = Path(__file__).resolve().parent.parent
NO_FILE = Path("/nonexistent/.env")
NO_STACK = {"STREAMBANK_LOCAL": "/nonexistent"}
SECRETS = {
    "STREAMBANK_JWT_SECRET": "j" * 32,
    "STREAMBANK_INTERNAL_TOKEN": "i" * 32,
    "STREAMBANK_PROVIDER_SECRET": "p" * 32,
    "STREAMBANK_FINGERPRINT_SECRET": "f" * 32,
    "STREAMBANK_MAIL_SECRET": "m" * 32,
    "STREAMBANK_WEBHOOK_KEYS": "w" * 32,
}
ACCOUNTS = {
    "STREAMBANK_BANK_IBAN": "FR1420041010050500013M02606",
    "STREAMBANK_BANK_BIC": "PSSTFRPPLIL",
    "STREAMBANK_PROVIDER_NAME": "Acme Payments",
    "STREAMBANK_PROVIDER_IBAN": "GB29NWBK60161331926819",
    "STREAMBANK_PROVIDER_BIC": "NWBKGB2LXXX",
}
PRODUCTION = {**NO_STACK, "STREAMBANK_ENVIRONMENT": "production", **SECRETS, **ACCOUNTS}


def load(**values: str) -> Settings:
    given = {f"STREAMBANK_{name.upper()}": value for name, value in values.items()}
    return Settings.load({**NO_STACK, **given}, NO_FILE)


def test_nothing_given_is_development_with_its_defaults() -> None:
    settings = Settings.load(NO_STACK, NO_FILE)
    assert settings == Settings()
    assert not settings.production
    assert settings.kafka == {
        "bootstrap.servers": "127.0.0.1:9092",
        "metadata.recovery.strategy": "none",
    }
    assert settings.ops_announced == "127.0.0.1:3001"


def test_values_have_their_types() -> None:
    settings = load(
        partitions="6",
        session_timeout_s="2.5",
        standby="true",
        state_dir="/var/lib/x",
        cors_origins="https://a.example, https://b.example",
    )
    assert settings.partitions == 6
    assert settings.session_timeout_s == 2.5
    assert settings.standby is True
    assert settings.state_dir == Path("/var/lib/x")
    assert settings.cors_origins == ("https://a.example", "https://b.example")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# ours\n\nSTREAMBANK_PARTITIONS=5\nexport STREAMBANK_PREFIX='x-'\nHOME=/y\n")
    settings = Settings.load({**NO_STACK, "STREAMBANK_PARTITIONS": "7"}, file)
    assert (settings.partitions, settings.prefix) == (7, "x-")


def test_a_running_local_stack_stands_in_for_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "settings.env").write_text("STREAMBANK_PARTITIONS=5\nSTREAMBANK_PREFIX=y-\n")
    given = {"STREAMBANK_LOCAL": str(tmp_path), "STREAMBANK_PREFIX": "x-"}
    settings = Settings.load(given, NO_FILE)
    assert (settings.partitions, settings.prefix) == (5, "x-")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("mysql_url", "mysql://bank:p%40ss@db:3307/bank"),
        ("mysql_url", "mysql://bank:@db/bank"),
        ("mongodb_url", "mongodb://a:1,b:2/bank?replicaSet=rs0"),
        ("mongodb_url", "mongodb+srv://bank:secret@cluster.example/bank"),
        ("redis_url", "rediss://:secret@cache:6379/0"),
        ("redis_url", ""),
    ],
)
def test_a_store_is_a_url(name: str, url: str) -> None:
    assert getattr(load(**{name: url}), name) == url


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("mysql_url", "mysql://bank:secret@db:3307"),
        ("mysql_url", "mysql://bank:secret@db:port/bank"),
        ("mysql_url", "postgres://bank:secret@db/bank"),
        ("mongodb_url", "mongodb://bank:secret@a:1"),
        ("redis_url", "secret@cache"),
    ],
)
def test_a_bad_url_of_a_store_is_one_sentence_without_its_password(name: str, url: str) -> None:
    with pytest.raises(BadSetting, match=f"STREAMBANK_{name.upper()} cannot be read") as refused:
        load(**{name: url})
    assert "secret" not in str(refused.value)


def test_urls_of_stores_are_not_shown() -> None:
    assert "secret" not in repr(load(mysql_url="mysql://bank:secret@db/bank"))


def test_sasl_and_tls_reach_the_clients(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("x")
    settings = load(
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_username="bank",
        kafka_sasl_password="secret",
        kafka_ssl_ca=str(ca),
    )
    assert settings.kafka == {
        "bootstrap.servers": "127.0.0.1:9092",
        "metadata.recovery.strategy": "none",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "bank",
        "sasl.password": "secret",
        "ssl.ca.location": str(ca),
    }


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"partitions": "three"},
            "STREAMBANK_PARTITIONS is 'three'; set it to a whole number",
        ),
        ({"partitions": "0"}, "STREAMBANK_PARTITIONS is 0; set it to a number above 0"),
        ({"session_timeout_s": "nan"}, "STREAMBANK_SESSION_TIMEOUT_S is nan; set it to a number"),
        ({"standby": "maybe"}, "STREAMBANK_STANDBY is 'maybe'; set it to true or false"),
        ({"gateway_port": "70000"}, "STREAMBANK_GATEWAY_PORT is 70000; set it to a port"),
        (
            {"table_store": "disk"},
            "STREAMBANK_TABLE_STORE is 'disk'; set it to memory or rocksdb",
        ),
        ({"instance": " "}, "STREAMBANK_INSTANCE is empty; give each worker"),
        ({"rail_url": "rail"}, "STREAMBANK_RAIL_URL is 'rail'; set it to an http://"),
        ({"kafka_security_protocol": "SASL_SSL"}, "STREAMBANK_KAFKA_SASL_USERNAME is empty;"),
        ({"kafka_ssl_ca": "/no/ca"}, "STREAMBANK_KAFKA_SSL_CA is '/no/ca'; no such file"),
        ({"password_rounds": "3"}, "STREAMBANK_PASSWORD_ROUNDS is 3; set it to 4 to 16"),
        ({"tls_key": "/no/key"}, "STREAMBANK_TLS_CERTIFICATE is empty; set both files"),
        (
            {"rate_limit_routes": "POST /api/users=5"},
            "STREAMBANK_RATE_LIMIT_ROUTES has 'POST /api/users=5'; write METHOD /path=",
        ),
        ({"bank_iban": "FR1420041010050500013M02607"}, "STREAMBANK_BANK_IBAN is 'FR1420041"),
        ({"bank_iban": "FR14 2004 1010 0505 0001 3M02 606"}, "STREAMBANK_BANK_IBAN is 'FR14 "),
        ({"provider_bic": "NWBK"}, "STREAMBANK_PROVIDER_BIC is 'NWBK'"),
        ({"bank_name": " "}, "STREAMBANK_BANK_NAME is empty or too long"),
        ({"partitons": "3"}, "STREAMBANK_PARTITONS is no setting; see docs/configuration.md"),
        (
            {"environment": "production"},
            "STREAMBANK_JWT_SECRET is missing, short or the default of development;",
        ),
    ],
)
def test_a_bad_value_is_one_sentence(values: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadSetting) as refused:
        load(**values)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("missing", ACCOUNTS)
def test_production_settles_over_no_example_s_account(missing: str) -> None:
    given = {name: value for name, value in PRODUCTION.items() if name != missing}
    with pytest.raises(BadSetting) as refused:
        Settings.load(given, NO_FILE)
    assert str(refused.value).startswith(f"{missing} is the example of development")


@pytest.mark.parametrize("missing", SECRETS)
def test_production_needs_secrets_of_its_own(missing: str) -> None:
    assert Settings.load(PRODUCTION, NO_FILE).production
    default = getattr(Settings(), missing[11:].lower())
    for bad in (None, "short", ",".join(default) if isinstance(default, tuple) else default):
        given = {**PRODUCTION, missing: bad} if bad else {**PRODUCTION}
        if bad is None:
            del given[missing]
        with pytest.raises(BadSetting, match=missing):
            Settings.load(given, NO_FILE)


def test_production_has_no_cheap_passwords() -> None:
    given = {**PRODUCTION, "STREAMBANK_PASSWORD_ROUNDS": "9"}
    with pytest.raises(BadSetting, match="STREAMBANK_PASSWORD_ROUNDS is 9; set it to 10 to 16"):
        Settings.load(given, NO_FILE)


def test_a_secret_is_not_shown_by_its_refusal() -> None:
    given = {**PRODUCTION, "STREAMBANK_ADMIN_PASSWORD": "hunter2"}
    with pytest.raises(BadSetting) as refused:
        Settings.load(given, NO_FILE)
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(Settings(admin_password="hunter2"))


def test_faust_takes_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own variables have names that others use, too; a version would even be another consumer group."""
    monkeypatch.setenv("APP_VERSION", "2")
    monkeypatch.setenv("WEB_PORT", "tcp://10.0.0.7:80")
    workers = build(load(), ["account"])
    assert workers.shells["account"].app.conf.id == "account"


def test_the_documented_table_is_the_declared_one() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == table(), "run: python -m settings > docs/configuration.md"
    for item in fields(Settings):
        assert f"`{variable(item)}`" in page


def test_the_example_names_settings_that_exist() -> None:
    names = {
        line.partition("=")[0]
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert names <= {variable(item) for item in fields(Settings)}
