"""The settings: one frozen object, read once from the environment and from a `.env` file.

    settings = Settings.load()          STREAMBANK_KAFKA_BOOTSTRAP=… → settings.kafka_bootstrap
    python -m settings > docs/configuration.md

The environment wins over `.env`. A field's declaration below is its documentation: default, allowed
values, what it does. Bad values and unknown STREAMBANK_ names end in one sentence (`BadSetting`).
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PREFIX = "STREAMBANK_"
LOCAL = "STREAMBANK_LOCAL"  # the directory of the local stack; not a setting of any service
PRODUCTION_SECRET_LENGTH = 32
NAME_LENGTH = 140  # of ISO 20022
STORE_URLS = {
    "mongodb_url": (r"mongodb(\+srv)?://[^/]+/[^/?]+(\?.*)?", "mongodb://host:port/database"),
    "mysql_url": (
        r"mysql://[^:@/]+(:[^@/]*)?@[^:@/]+(:\d{1,5})?/[^/?]+",
        "mysql://user:password@host:port/database",
    ),
    "redis_url": (r"rediss?://\S+", "redis://host:port/0"),
}


class BadSetting(Exception):
    """A setting that cannot be used: the message names it, what is wrong, and what to do."""


def _setting(default: Any, about: str, *, choices: Iterable[str] = (), secret: bool = False) -> Any:
    metadata = {"about": about, "choices": tuple(choices), "secret": secret}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one process is told; times in seconds unless the name says otherwise."""

    environment: str = _setting(
        "development",
        "`production` refuses secrets that are missing, short or left at their default",
        choices=("development", "production"),
    )
    log_level: str = _setting(
        "INFO", "least level that is logged", choices=("ERROR", "WARN", "INFO", "DEBUG")
    )

    kafka_bootstrap: str = _setting("127.0.0.1:9092", "brokers to ask first: `host:port,…`")
    kafka_security_protocol: str = _setting(
        "PLAINTEXT",
        "how clients reach the brokers",
        choices=("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    )
    kafka_sasl_mechanism: str = _setting(
        "SCRAM-SHA-512",
        "with a SASL protocol",
        choices=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    )
    kafka_sasl_username: str = _setting("", "with a SASL protocol")
    kafka_sasl_password: str = _setting("", "with a SASL protocol", secret=True)
    kafka_ssl_ca: str = _setting("", "PEM file of the authorities that signed the brokers")
    kafka_ssl_certificate: str = _setting("", "PEM file of this client's certificate")
    kafka_ssl_key: str = _setting("", "PEM file of this client's key")
    kafka_public: tuple[str, ...] = _setting(
        (),
        "`host:port` of brokers as subscribers reach them, separated by commas, for the AsyncAPI document; "
        "empty: it tells none",
    )

    prefix: str = _setting("", "goes before every topic, group and transactional id")
    partitions: int = _setting(3, "partitions of each topic; cannot change once there is data")
    replication: int = _setting(1, "copies of each topic; 3 with several brokers")
    inbox_retention_hours: int = _setting(168, "how long inboxes keep what was read")

    instance: str = _setting(
        socket.gethostname, "stable name of this worker, one of its own for each worker process"
    )
    table_store: str = _setting(
        "memory", "where tables live besides Kafka", choices=("memory", "rocksdb")
    )
    state_dir: Path = _setting(  # noqa: RUF009 - declares a field
        Path(".local/state"), "directory of RocksDB's files"
    )
    standby: bool = _setting(False, "keep warm copies of other workers' tables")
    static_membership: bool = _setting(
        False, "a restarted worker keeps its partitions; needs a stable `instance`"
    )
    adopt_topology: tuple[str, ...] = _setting(
        (), "after an upgrade that says so: hashes of the old topologies, separated by commas"
    )
    skip: tuple[str, ...] = _setting(
        (),
        "records that a person gives up, topic-partition@offset as the log says it, separated by commas: they go to "
        "the dead letters, and the partitions that they stopped go on",
    )
    batch_max: int = _setting(2_000, "records per transaction")
    session_timeout_s: float = _setting(10.0, "a worker silent for this long loses its partitions")
    cycle_timeout_s: float = _setting(8.0, "longest work on one record")
    transaction_timeout_s: float = _setting(
        10.0, "longest time that a dead worker's open transaction holds back others"
    )
    beside_nice: int = _setting(
        5, "by how much `worker beside`, the services off the money path, gives way (nice)"
    )
    ops_host: str = _setting("127.0.0.1", "interface of a worker's ops server")
    ops_port: int = _setting(3001, "its port: health, metrics, table reads")
    ops_address: str = _setting(
        "", "`host:port` under which others reach it; default `ops_host:ops_port`"
    )

    gateway_host: str = _setting("127.0.0.1", "interface of the HTTP gateway")
    gateway_port: int = _setting(3000, "its port")
    gateway_processes: int = _setting(1, "processes that share the port")
    public_url: str = _setting(
        "",
        "`https://…` under which clients reach the gateway, for the AsyncAPI document; empty: it tells none",
    )
    tls_certificate: str = _setting("", "PEM file: the gateway serves HTTPS")
    tls_key: str = _setting("", "PEM file of its key")
    cors_origins: tuple[str, ...] = _setting(
        (), "origins whose pages may call the gateway, separated by commas"
    )
    rate_limit: bool = _setting(
        False, "limit requests per address and route; in production always on"
    )
    rate_limit_requests: int = _setting(100, "requests of one address to one route in a window")
    rate_limit_window_s: float = _setting(900.0, "that window")
    rate_limit_by: str = _setting(
        "address",
        "who is counted: an address, or the user where one is logged in",
        choices=("address", "user"),
    )
    rate_limit_routes: tuple[str, ...] = _setting(
        (), "routes with a limit of their own, as `POST /api/auth/login=10/60`, separated by commas"
    )
    password_rounds: int = _setting(
        12,
        "bcrypt's cost: one more doubles the time of a log-in, and of each guess; 10 to 16, outside "
        "of production as little as 4",
    )
    login_failures_account: int = _setting(
        10, "wrong passwords for one account in `login_window_s`; beyond it 429, right or wrong"
    )
    login_failures_address: int = _setting(300, "the same from one address, for any accounts")
    login_window_s: float = _setting(900.0, "in which so many tries drip back")
    transaction_deadline_s: int = _setting(
        30, "default time in which a transaction must succeed, or is put back"
    )
    exchange_spread_ppm: int = _setting(
        5_000, "parts per million that a customer's rate is below the market's"
    )
    quote_hold_s: int = _setting(60, "for how long a quote holds its rate")
    rate_max_age_s: int = _setting(
        432_000, "age up to which a rate is good; from then on exchanges at it are refused"
    )
    access_token_s: int = _setting(3600, "life of an access token")

    jwt_secret: str = _setting(
        "development-only-jwt-secret-do-not-use", "signs access tokens (HS256)", secret=True
    )
    internal_token: str = _setting(
        "development-only-internal-token", "lets the gateway read workers' tables", secret=True
    )
    audit_key: str = _setting(
        "", "signs checkpoints and exports of audit (HMAC-SHA256); empty: unsigned", secret=True
    )
    admin_email: str = _setting("admin@streambank.example", "of the first admin (`create-admin`)")
    admin_password: str = _setting("", "of the first admin (`create-admin`)", secret=True)

    rates_url: str = _setting(
        "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml",
        "the feed of rates (the ECB's XML), asked as `pipeline.py rates every SECONDS` says",
    )
    bank_name: str = _setting("Streambank", "whose account money is settled over")
    bank_iban: str = _setting("DE89370400440532013000", "that account, at the bank's own bank")
    bank_bic: str = _setting("COBADEFFXXX", "that bank")
    provider_name: str = _setting("Sandbox Payments", "whose account the provider settles over")
    provider_iban: str = _setting("NL91ABNA0417164300", "that account")
    provider_bic: str = _setting("ABNANL2AXXX", "its bank")
    reports_dir: Path = _setting(  # noqa: RUF009 - declares a field
        Path(".local/reports"),
        "directory of reports' files, one for the workers that make them and the gateways",
    )
    rail_url: str = _setting("http://127.0.0.1:3012", "the payment provider's HTTP interface")
    provider: str = _setting("sandbox", "its name: in URLs of its notices, in its statements")
    provider_secret: str = _setting(
        "development-only-provider-secret", "signs its notices (HMAC-SHA256)", secret=True
    )
    fingerprint_secret: str = _setting(
        "development-only-fingerprint-secret",
        "makes fingerprints of card numbers and IBANs; never changes",
        secret=True,
    )

    smtp_host: str = _setting("127.0.0.1", "mail server that notifications go out by")
    smtp_port: int = _setting(3014, "its port")
    smtp_security: str = _setting(
        "none", "how it is spoken to", choices=("none", "starttls", "tls")
    )
    smtp_username: str = _setting("", "to log in there; empty: without")
    smtp_password: str = _setting("", "to log in there", secret=True)
    mail_sender: str = _setting("no-reply@streambank.example", "address that mails are from")
    mail_secret: str = _setting(
        "development-only-mail-secret-do-not-use",
        "tokens that mails carry are made from it: the gateway and `perform` share it",
        secret=True,
    )
    sms_url: str = _setting("", "where SMS are POSTed as JSON; empty: none are sent")
    sms_token: str = _setting("", "bearer token for it", secret=True)
    push_url: str = _setting("", "where push messages are POSTed as JSON; empty: none are sent")
    push_token: str = _setting("", "bearer token for it", secret=True)
    webhook_keys: tuple[str, ...] = _setting(
        ("development-only-webhook-key-do-not-use",),
        "keys that the secrets of webhook endpoints are made from; while one is exchanged the new "
        "and the old one, separated by a comma",
        secret=True,
    )
    webhook_private: bool = _setting(
        False, "development: webhooks may go to private addresses, and over plain HTTP"
    )

    mongodb_url: str = _setting(
        "", "read models in MongoDB: `mongodb://…/database`; empty: there are none", secret=True
    )
    mongodb_client: str = _setting(
        "motor", "the driver for it: motor, or PyMongo's own", choices=("motor", "pymongo")
    )
    mysql_url: str = _setting(
        "",
        "read models in MySQL or MariaDB: `mysql://user:password@host:port/database`; "
        "empty: there are none",
        secret=True,
    )
    redis_url: str = _setting(
        "",
        "cache of reads in Redis: `redis://…` or `rediss://…`; empty: there is none",
        secret=True,
    )

    kafka_port: int = _setting(9092, "local stack: its Kafka's port")
    kafka_heap_mb: int = _setting(256, "local stack: its Kafka's heap")
    rail_port: int = _setting(3012, "local stack: its payment rail's port")
    mail_port: int = _setting(3014, "local stack: its mail server's port")
    messages_port: int = _setting(3015, "local stack: port of what takes its SMS and push messages")
    projector_port: int = _setting(
        3013, "local stack: ops port of the process that fills its stores"
    )
    beside_port: int = _setting(3019, "local stack: ops port of the services off the money path")
    local_stores: str = _setting(
        "all",
        "local stack: starts those stores whose URL is not set",
        choices=("all", "none"),
    )

    def __post_init__(self) -> None:
        for check in CHECKS:
            check(self)

    @classmethod
    def load(
        cls, environment: Mapping[str, str] | None = None, file: Path = Path(".env")
    ) -> Settings:
        """From the running local stack's file, `file` and the environment; the last wins.

        Raises BadSetting.
        """
        environment = os.environ if environment is None else environment
        given = {**_read(local_file(environment)), **_read(file), **environment}
        known = {variable(item): item for item in fields(cls)}
        unknown = [
            name
            for name in given
            if name.startswith(PREFIX) and name not in known and name != LOCAL
        ]
        if unknown:
            raise BadSetting(
                f"{min(unknown)} is no setting; see docs/configuration.md for those there are"
            )
        types = get_type_hints(cls)
        values = {
            item.name: _parse(name, given[name], types[item.name])
            for name, item in known.items()
            if name in given
        }
        return cls(**values)

    @property
    def production(self) -> bool:
        return self.environment == "production"

    @property
    def ops_announced(self) -> str:
        """host:port of this process's ops server, as others reach it."""
        return self.ops_address or f"{self.ops_host}:{self.ops_port}"

    @property
    def kafka_security(self) -> dict[str, str]:
        """librdkafka's settings of SASL and TLS; empty for a plain listener."""
        if self.kafka_security_protocol == "PLAINTEXT":
            return {}
        options = {"security.protocol": self.kafka_security_protocol}
        if self.kafka_security_protocol.startswith("SASL"):
            options["sasl.mechanism"] = self.kafka_sasl_mechanism
            options["sasl.username"] = self.kafka_sasl_username
            options["sasl.password"] = self.kafka_sasl_password
        files = {
            "ssl.ca.location": self.kafka_ssl_ca,
            "ssl.certificate.location": self.kafka_ssl_certificate,
            "ssl.key.location": self.kafka_ssl_key,
        }
        return options | {name: path for name, path in files.items() if path}

    @property
    def route_limits(self) -> dict[str, tuple[int, float]]:
        """Requests and seconds by the name of a route that has a limit of its own."""
        found = {}
        for entry in self.rate_limit_routes:
            match = re.fullmatch(r"([A-Z]+ /\S+)=(\d{1,9})/(\d{1,9})", entry)
            if match is None or not (int(match[2]) and int(match[3])):
                raise BadSetting(
                    f"STREAMBANK_RATE_LIMIT_ROUTES has {entry!r}; write METHOD /path=REQUESTS/SECONDS"
                )
            found[match[1]] = int(match[2]), float(match[3])
        return found

    @property
    def kafka(self) -> dict[str, str]:
        """librdkafka's settings for any client: where the brokers are and how to reach them.

        No client forgets its brokers when all are away: it could then wait for ever for one of them.
        """
        known = {"metadata.recovery.strategy": "none"}
        return {"bootstrap.servers": self.kafka_bootstrap, **known, **self.kafka_security}


def local_file(environment: Mapping[str, str]) -> Path:
    """Where a running local stack says its addresses and secrets, for commands in the same tree."""
    local = environment.get(LOCAL) or Path(__file__).resolve().parent / ".local"
    return Path(local) / "settings.env"


def variable(item: Field[Any]) -> str:
    """The environment variable of a field."""
    return PREFIX + item.name.upper()


def _read(file: Path) -> dict[str, str]:
    """NAME=value lines; blank ones and those that begin with # do not count."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return {}
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals:
            raise BadSetting(f"{file} line {number} is not NAME=value; correct or remove it")
        values[name.strip()] = value.strip().strip("\"'")
    return values


def _parse(name: str, text: str, kind: Any) -> Any:
    parser, expected = PARSERS[kind]
    try:
        return parser(text)
    except (ValueError, KeyError):
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise BadSetting(f"{name} is {shown!r}; set it to {expected}") from None


def _truth(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
        text.strip().lower()
    ]


PARSERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    str: (str, "text"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (_truth, "true or false"),
    Path: (Path, "a path"),
    tuple[str, ...]: (
        lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
        "names separated by commas",
    ),
}


def _choices_are_kept(settings: Settings) -> None:
    for item in fields(settings):
        choices, value = item.metadata["choices"], getattr(settings, item.name)
        if choices and value not in choices:
            raise BadSetting(f"{variable(item)} is {value!r}; set it to {_either(choices)}")


def _numbers_are_possible(settings: Settings) -> None:
    for item in fields(settings):
        value = getattr(settings, item.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if item.name.endswith("_port"):
            if not 0 < value < 65_536:
                raise BadSetting(f"{variable(item)} is {value}; set it to a port, 1 to 65535")
        elif item.name.endswith("_ppm"):
            if not 0 <= value < 1_000_000:
                raise BadSetting(f"{variable(item)} is {value}; set it to 0 … 999999")
        elif not 0 < value < 1_000_000_000:
            raise BadSetting(f"{variable(item)} is {value}; set it to a number above 0")


def _passwords_are_dear(settings: Settings) -> None:
    least = 10 if settings.production else 4
    if not least <= settings.password_rounds <= 16:
        raise BadSetting(
            f"STREAMBANK_PASSWORD_ROUNDS is {settings.password_rounds}; set it to {least} to 16"
        )


def _rates_can_be_used(settings: Settings) -> None:
    for name, limit_s in (("quote_hold_s", 24 * 3600), ("rate_max_age_s", 30 * 24 * 3600)):
        value = getattr(settings, name)
        if value > limit_s:
            raise BadSetting(
                f"{PREFIX}{name.upper()} is {value}; set it to at most {limit_s} seconds"
            )


def _places_are_places(settings: Settings) -> None:
    for place in settings.skip:
        if not re.fullmatch(r".+-\d+@\d+", place):
            raise BadSetting(
                f"STREAMBANK_SKIP has {place!r}; set it to places such as risk.inbox-0@17, separated by commas"
            )


def _names_are_given(settings: Settings) -> None:
    if not settings.instance.strip():
        raise BadSetting("STREAMBANK_INSTANCE is empty; give each worker a stable name of its own")
    if not settings.kafka_bootstrap.strip():
        raise BadSetting("STREAMBANK_KAFKA_BOOTSTRAP is empty; set it to host:port of a broker")
    for name in ("rail_url", "rates_url"):
        url = getattr(settings, name)
        if not url.startswith(("http://", "https://")):
            raise BadSetting(
                f"{PREFIX}{name.upper()} is {url!r}; set it to an http:// or https:// URL"
            )


def _outbound_is_possible(settings: Settings) -> None:
    for name in ("sms_url", "push_url"):
        url = getattr(settings, name)
        if url and not url.startswith(("http://", "https://")):
            raise BadSetting(
                f"{PREFIX}{name.upper()} is {url!r}; set it to an http:// or https:// URL"
            )
    if not settings.webhook_keys:
        raise BadSetting("STREAMBANK_WEBHOOK_KEYS is empty; set it to a random text")
    if not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", settings.mail_sender):
        raise BadSetting(
            f"STREAMBANK_MAIL_SENDER is {settings.mail_sender!r}; set it to an e-mail address"
        )


def _stores_are_urls(settings: Settings) -> None:
    """The values are not shown: they hold passwords."""
    for name, (pattern, form) in STORE_URLS.items():
        url = getattr(settings, name)
        if url and not re.fullmatch(pattern, url):
            raise BadSetting(
                f"{PREFIX}{name.upper()} cannot be read; set it to {form}, or leave it empty"
            )


def _limits_can_be_read(settings: Settings) -> None:
    settings.route_limits  # noqa: B018 - raises BadSetting


def _files_are_there(settings: Settings) -> None:
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        missing = "STREAMBANK_TLS_KEY" if settings.tls_certificate else "STREAMBANK_TLS_CERTIFICATE"
        raise BadSetting(f"{missing} is empty; set both files for HTTPS, or neither")
    for name in (
        "tls_certificate",
        "tls_key",
        "kafka_ssl_ca",
        "kafka_ssl_certificate",
        "kafka_ssl_key",
    ):
        path = getattr(settings, name)
        if path and not Path(path).is_file():
            raise BadSetting(f"{PREFIX}{name.upper()} is {path!r}; no such file: correct the path")


def _sasl_is_complete(settings: Settings) -> None:
    if not settings.kafka_security_protocol.startswith("SASL"):
        return
    for name in ("kafka_sasl_username", "kafka_sasl_password"):
        if not getattr(settings, name):
            raise BadSetting(
                f"{PREFIX}{name.upper()} is empty; {settings.kafka_security_protocol} needs it"
            )


def _production_has_secrets(settings: Settings) -> None:
    if not settings.production:
        return
    for item in fields(settings):
        if item.name not in SECRETS:
            continue
        value = getattr(settings, item.name)
        secrets = value if isinstance(value, tuple) else (value,)
        short = min(map(len, secrets), default=0) < PRODUCTION_SECRET_LENGTH
        if value == item.default or short:
            raise BadSetting(
                f"{variable(item)} is missing, short or the default of development; production "
                f"needs {PRODUCTION_SECRET_LENGTH} random characters or more (openssl rand -hex 32)"
            )
    if settings.webhook_private:
        raise BadSetting(
            "STREAMBANK_WEBHOOK_PRIVATE is true; that is for development, remove it in production"
        )
    if settings.admin_password and len(settings.admin_password) < 12:
        raise BadSetting(
            "STREAMBANK_ADMIN_PASSWORD is short; production needs 12 characters or more"
        )


# what production may not leave to the defaults of development
SECRETS = (
    "jwt_secret",
    "internal_token",
    "mail_secret",
    "provider_secret",
    "fingerprint_secret",
    "webhook_keys",
)

# whose accounts settlement moves money between: in production no example's
PARTIES = ("bank", "provider")


def _accounts_can_be_used(settings: Settings) -> None:
    known = {item.name: item.default for item in fields(settings)}
    for name in [f"{party}_{part}" for party in PARTIES for part in ("name", "iban", "bic")]:
        value = getattr(settings, name)
        if settings.production and value == known[name] and name != "bank_name":
            raise BadSetting(
                f"{PREFIX}{name.upper()} is the example of development; set it to what is used"
            )
        if not value.strip() or len(value) > NAME_LENGTH:
            raise BadSetting(f"{PREFIX}{name.upper()} is empty or too long; set it")
        if value != known[name] and not name.endswith("_name") and not _is_account(name, value):
            raise BadSetting(
                f"{PREFIX}{name.upper()} is {value[:40]!r}; set it to one whose check digits and "
                "country fit"
            )


def _is_account(name: str, value: str) -> bool:
    from schwifty import BIC, IBAN  # takes its time: only where it is needed
    from schwifty.exceptions import SchwiftyException

    try:
        found = IBAN(value) if name.endswith("_iban") else BIC(value)
    except SchwiftyException:
        return False
    return found.compact == value


CHECKS: tuple[Callable[[Settings], None], ...] = (
    _limits_can_be_read,
    _choices_are_kept,
    _numbers_are_possible,
    _rates_can_be_used,
    _names_are_given,
    _places_are_places,
    _outbound_is_possible,
    _stores_are_urls,
    _passwords_are_dear,
    _sasl_is_complete,
    _files_are_there,
    _production_has_secrets,
    _accounts_can_be_used,
)


def _either(choices: Iterable[str]) -> str:
    *most, last = choices
    return f"{', '.join(most)} or {last}"


def _default(item: Field[Any]) -> str:
    if item.default is MISSING:
        return "the host's name" if item.name == "instance" else "computed"
    if item.metadata["secret"]:
        return "for development only" if item.default else "none"
    value = item.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        value = ",".join(value)
    return f"`{value}`" if value != "" else "none"


def table() -> str:
    """The settings as a Markdown document."""
    rows = []
    for item in fields(Settings):
        about = item.metadata["about"]
        if item.metadata["choices"]:
            about += f" ({_either(f'`{choice}`' for choice in item.metadata['choices'])})"
        if item.metadata["secret"]:
            about += " (secret)"
        rows.append(f"| `{variable(item)}` | {_default(item)} | {about} |")
    return "\n".join(
        [
            "# Configuration",
            "",
            "Read once, from the environment and from a `.env` file in the working directory;",
            "the environment wins. An unknown `STREAMBANK_` name or a bad value ends the process",
            "with one sentence. Names that end in `_s` are seconds. While a local stack runs, its",
            "addresses and secrets stand in for the defaults (`.local/settings.env`).",
            f"`{LOCAL}` moves `.local` elsewhere. This page is written by `python -m settings`;",
            "a test holds it against `settings.py`.",
            "",
            "| variable | default | what it does |",
            "| --- | --- | --- |",
            *rows,
            "",
            "## Kafka behind a password and TLS",
            "",
            "Every client of every command takes these settings, and no other: brokers that ask for",
            "SASL over TLS need",
            "",
            "```sh",
            "STREAMBANK_KAFKA_BOOTSTRAP=kafka-1.example:9093",
            "STREAMBANK_KAFKA_SECURITY_PROTOCOL=SASL_SSL",
            "STREAMBANK_KAFKA_SASL_MECHANISM=SCRAM-SHA-512",
            "STREAMBANK_KAFKA_SASL_USERNAME=streambank",
            "STREAMBANK_KAFKA_SASL_PASSWORD=…",
            "STREAMBANK_KAFKA_SSL_CA=/etc/streambank/kafka-ca.pem",
            "```",
            "",
            "The broker's certificate must name the host as it is asked for. Without",
            "`STREAMBANK_KAFKA_SSL_CA` the authorities of the machine are trusted. A command that the",
            "broker does not let in, or that does not trust the broker, ends with one sentence and",
            "exit 1 after five seconds; the password stands in no log.",
            "",
            "Prefer a key on a curve (P-256) for the broker: a connection that idles for half of",
            "`STREAMBANK_TRANSACTION_TIMEOUT_S` is made anew, and with RSA of 2,048 bits a broker of",
            "our tests took 1.7 × the CPU.",
            "",
        ]
    )


if __name__ == "__main__":
    import sys

    sys.stdout.write(table())
