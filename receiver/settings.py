"""Read and validate every setting from the environment (`DARKROOM_`, nested with `__`) or a `.env` file."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableSettings

from receiver import settings_types as types
from receiver.errors import SettingsError
from receiver.gateways.registry import ADAPTERS, BY_NAME, Gateways, group_of
from receiver.schemas.faults import message
from receiver.settings_sources import PREFIX, nearest, prepare, sources, unknown, variable
from storage.archive.keys import DEFAULT_TEMPLATE
from storage.errors import Misconfigured

if TYPE_CHECKING:
    from storage.ledger.url import LedgerUrl

LEDGER_FILE = "ledger.sqlite3"
"""The SQLite ledger in the data folder."""


class S3Settings(types.Group):
    """Where the archive is."""

    endpoint: types.BaseUrl | None = None
    """The S3-compatible server; unset means AWS."""
    public_endpoint: types.BaseUrl | None = None
    """The address of that server in presigned links, if it differs from the above. It may have a path, which
    the proxy there must remove, and pass on the `Host`."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """Where URLs name the bucket: in the path, or in the host name (virtual). auto tries both at start."""
    bucket: str | None = None
    """The archive's bucket. Required."""
    create_bucket: bool = False
    """Create the bucket at start if it does not exist."""
    prefix: types.KeyPrefix = ""
    """Prefix of every key, for a shared bucket: `darkroom/`."""
    region: str | None = None
    """The bucket's region; unset means the usual AWS chain."""
    access_key: types.Secret | None = None
    """The access key; unset means the usual AWS chain."""
    secret_key: types.Secret | None = None
    """The secret key of that access key."""
    checksums: Literal["when_required", "when_supported"] = "when_required"
    """When boto3 adds a CRC of its own, which some S3-compatible servers refuse; the SHA-256 of every image
    is sent either way, where the server accepts it."""
    link_lifetime: int = Field(900, ge=1, le=604800)
    """Seconds that a presigned link to an image is valid."""


class OutboundSettings(types.Group):
    """Requests to gateways, image hosts, notified applications and the bucket."""

    ca_bundle: Path | None = None
    """File, or folder of files, in PEM, with the authorities of your own to trust, beside the usual ones
    (certifi's, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`)."""
    proxy: types.ProxyUrl | None = None
    """Forward proxy: `http://USER:PASSWORD@HOST:PORT`. `HTTPS_PROXY` and its like are not used. For images
    and notifications names are looked up and checked here, and the proxy gets the address."""
    direct: types.Direct = Field(default_factory=list)
    """Hosts, with their subdomains, and networks that are reached without the proxy:
    `minio.internal,10.0.0.0/8`. Loopback always is."""


class CallbackSettings(types.Group):
    """Callbacks."""

    lifetime: int = Field(172800, ge=60)
    """Seconds that a callback URL is valid after submitting."""
    max_bytes: int = Field(4194304, ge=1024, le=67108864)
    """Largest body of a callback in bytes; more gets 413."""


class DownloadSettings(types.Group):
    """Downloads of images."""

    allow_networks: types.Networks = Field(default_factory=list)
    """Private networks that images may be downloaded from, also over plain http: `127.0.0.0/8`. For
    development."""
    max_bytes: int = Field(67108864, ge=1024)
    """Largest image in bytes."""
    max_pixels: int = Field(100000000, ge=1)
    """Largest image in pixels, width times height."""
    timeout: float = Field(60, gt=0)
    """Longest time of one download, in seconds."""


class WorkerSettings(types.Group):
    """What submits, downloads and archives."""

    processes: int = Field(1, ge=0, le=64)
    """Worker processes of `darkroom serve`; 0: threads of the server do the work, which takes two thirds of
    the memory, and callbacks wait for them."""
    concurrency: int = Field(8, ge=1, le=256)
    """Jobs that each worker process works on at once."""
    nice: int = Field(19, ge=0, le=19)
    """How far worker processes of `darkroom serve` stand back for callbacks, the API and the gallery when all
    want the processor, as with the command `nice`; 0: not at all."""
    first_poll: float = Field(30, gt=0)
    """Seconds after submitting until a job that awaits a callback is polled."""
    poll_interval: float = Field(2, gt=0)
    """Seconds between polls without a public URL; grows to five times that."""


class ReadySettings(types.Group):
    """When `/readyz` fails."""

    oldest_result: float = Field(21600, gt=0)
    """Seconds that a result may wait to be archived before `/readyz` fails: gateways delete images after 24
    hours."""
    no_worker: float = Field(60, ge=15)
    """Seconds without a worker, in any process, before `/readyz` fails. Workers are seen every 10 seconds."""


class LedgerSettings(types.Group):
    """The ledger."""

    accept_incomplete: bool = False
    """Go on although the bucket has records of jobs that the ledger lacks. Requests with their
    `Idempotency-Key` would be charged again; remove the setting after the first new job."""


class LimitSettings(types.Group):
    """Limits of one API token, one address and one connection."""

    api_token: int = Field(6000, ge=0)
    """Rate limit: requests a minute with one API token; 0: no limit."""
    callback_token: int = Field(600, ge=0)
    """Rate limit: callbacks a minute for one job; each 64 KiB of a body count as one more; 0: no limit."""
    bad_tokens: int = Field(120, ge=0)
    """Rate limit: requests a minute without a valid token from one address; 0: no limit."""
    head_timeout: float = Field(15, gt=0)
    """Longest time to send the head of a request, and to read its response, in seconds."""
    body_timeout: float = Field(20, gt=0)
    """Longest time to send the body of a request, in seconds."""
    connections: int = Field(2000, ge=10)
    """Most open connections; beyond that, idle ones are closed."""
    waiting: int = Field(1000, ge=1)
    """Most requests that wait at once, `?wait=` and events, up to half of the connections."""
    waiting_token: int = Field(400, ge=1)
    """Most requests with one API token that wait at once."""


class NotifySettings(types.Group):
    """Notifications: webhooks to your application when a job is finished."""

    url: types.Secret | None = None
    """URL for the notifications of jobs without a `notify_url`; unset: none are sent."""
    secrets: types.WebhookSecrets = Field(default_factory=list)
    """Sign notifications: `whsec_<base64>`, oldest first, and each of them signs. Unset: one is created in
    the data folder; `darkroom notifications secret` shows it."""
    allow_networks: types.Networks = Field(default_factory=list)
    """Private networks that notifications may be sent to, also over plain http: `127.0.0.0/8` for an
    application on this machine."""
    allow_hosts: types.Hosts = Field(default_factory=list)
    """Allow-list of other hosts, with their subdomains, that notifications may be sent to; unset: any public
    host."""
    timeout: float = Field(15, gt=0, le=120)
    """Seconds that the endpoint has to respond."""
    concurrency: int = Field(8, ge=1, le=64)
    """Most notifications sent at once; to one host, a quarter of that."""


class Settings(BaseSettings):
    """Every setting."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        nested_model_default_partial_update=True,
        hide_input_in_errors=True,
    )

    public_url: types.BaseUrl | None = None
    """The address at which gateways reach this service. Without it, jobs are polled."""
    path_prefix: types.PathPrefix | None = None
    """The path of Darkroom behind a reverse proxy: `/photos`. All links and cookies have it; requests are
    understood with and without it. Unset: the path of DARKROOM_PUBLIC_URL; `/`: none. Callback URLs begin
    with DARKROOM_PUBLIC_URL alone."""
    secret_keys: types.SigningKeys = Field(default_factory=list)
    """Keys that sign callback URLs; oldest first, the last one signs. Unset: one is created in the data
    folder."""
    data_dir: Path = Path("darkroom-data")
    """The data folder, for the SQLite ledger and the keys."""
    database_url: types.Secret | None = None
    """The ledger: `postgresql://USER:PASSWORD@HOST/DATABASE`, also `postgres://` and with the parameters of
    libpq, such as `?sslmode=require`; or `sqlite:///PATH`. Unset: SQLite in the data folder."""
    database_direct_url: types.Secret | None = None
    """PostgreSQL itself, if DARKROOM_DATABASE_URL leads to a pooler in transaction mode: each process listens
    there for the others. Unset: they look at the ledger once a second."""
    api_tokens: types.ApiTokens = Field(default_factory=list)
    """Tokens of the API: `name:scope:token`, scopes read, submit (reads too) and admin. Without any, the API
    is open on loopback only."""
    cors_origins: types.Origins = Field(default_factory=list)
    """Origins of web pages that may use the API from a browser, with a token of their own: `https://app.example.com`.
    Unset: none."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(8321, ge=0, le=65535)
    """The port to listen on; 0 picks a free one."""
    trusted_proxies: types.Networks = Field(default_factory=list)
    """Networks of your reverse proxies, whose `X-Forwarded-For` is trusted: `10.0.0.0/8`."""
    key_template: types.KeyTemplate = DEFAULT_TEMPLATE
    """Keys of the images: date, job_id, index, ext, gateway, model, sha256, tag:<name>. Other characters than
    letters, digits, `_`, `.` and `-` in a tag or model become `-`; a first part that Darkroom reserves, such
    as `records`, gets `_` before it. A part may have 200 bytes and a key 1,000; a job that would need more is
    refused."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """Format of log lines: JSON, or text for people; auto chooses text in a terminal."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level to log."""
    gateways_dir: Path | None = None
    """Folder with gateways of your own: each `*.toml` there declares one. `darkroom help gateways` says
    how."""
    s3: S3Settings = S3Settings()
    gateways: Gateways = Gateways()
    callbacks: CallbackSettings = CallbackSettings()
    limits: LimitSettings = LimitSettings()
    outbound: OutboundSettings = OutboundSettings()
    download: DownloadSettings = DownloadSettings()
    worker: WorkerSettings = WorkerSettings()
    ready: ReadySettings = ReadySettings()
    ledger: LedgerSettings = LedgerSettings()
    notify: NotifySettings = NotifySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return what is read, first to last: arguments, the environment, `.env`."""
        found = super().settings_customise_sources(
            settings_cls, init_settings, env_settings, dotenv_settings, file_secret_settings
        )
        for source in found:
            if isinstance(source, EnvSettingsSource):
                prepare(source)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        # The models of gateways are made when the program runs, so that pickle cannot find them by name.
        return _restored, (_named(type(self)), self.gateways_dir, self.model_dump())

    @property
    def prefix(self) -> str:
        """Return the path before all others: `/photos`, or nothing."""
        return urlsplit(self.public_url or "").path if self.path_prefix is None else self.path_prefix

    @property
    def links(self) -> str:
        """Return what the URLs of images begin with: the public origin, if there is one, and the prefix."""
        public = urlsplit(self.public_url or "")
        return f"{public.scheme}://{public.netloc}{self.prefix}" if public.netloc else self.prefix

    @property
    def ledger_url(self) -> LedgerUrl:
        """Return where the ledger is; raise SettingsError if its URL cannot be used."""
        from storage.ledger.url import LedgerUrl

        if self.database_url is None:
            return LedgerUrl.of_file(self.data_dir / LEDGER_FILE, "DARKROOM_DATA_DIR")
        return _parsed(self.database_url, "DARKROOM_DATABASE_URL")

    @property
    def listening_url(self) -> LedgerUrl:
        """Return where to listen for other processes; raise SettingsError if the URL cannot be used."""
        if self.database_direct_url is None:
            return self.ledger_url
        return _parsed(self.database_direct_url, "DARKROOM_DATABASE_DIRECT_URL")


def _parsed(url: SecretStr, setting: str) -> LedgerUrl:
    # Imported here, because a command that only shows the settings should not pay for SQLAlchemy.
    from storage.ledger.url import LedgerUrl

    try:
        return LedgerUrl.parse(url.get_secret_value(), setting)
    except Misconfigured as error:
        raise SettingsError(str(error)) from None


def _model(folder: str | Path | None) -> type[Settings]:
    """Return the model of the settings, with those of the gateways that are declared in the folder."""
    given = (source.env_vars.get(f"{PREFIX}GATEWAYS_DIR".lower()) for source in sources(Settings))
    folder = folder or next(filter(None, given), None)
    return with_declared(Path(folder)) if folder else Settings


def with_declared(folder: Path, model: type[Settings] = Settings) -> type[Settings]:
    """Return the model of the settings with the gateways of a folder; raise SettingsError for a bad file."""
    # Imported here, because most have none.
    from receiver.gateways.declared import adapter_of, read_folder

    files = read_folder(folder, taken=frozenset(BY_NAME))
    group = group_of([*ADAPTERS, *map(adapter_of, files)])
    return create_model("Settings", __base__=model, __module__=__name__, gateways=(group, group()))


def _named(model: type[Settings]) -> type[Settings]:
    """Return the nearest model that another process finds by its name."""
    return next(kind for kind in model.__mro__ if _found(kind) is kind)


def _found(kind: type) -> object:
    return getattr(sys.modules[kind.__module__], kind.__qualname__, None)


def _restored(model: type[Settings], folder: Path | None, values: dict[str, Any]) -> Settings:
    return (with_declared(folder, model) if folder else model)(**values)


def load(**overrides: Any) -> Settings:
    """Read and validate the settings, overrides first; raise SettingsError that names each invalid one."""
    try:
        return _model(overrides.get("gateways_dir"))(**overrides)
    except UnreadableSettings as error:
        group = re.search(r'field "(\w+)"', str(error))
        name = variable((group[1],)) if group else "The environment"
        raise SettingsError(f"{name} cannot be read: set what is in it one by one, {name}__...") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f".env is not text in UTF-8: see its byte {error.start}.") from None
    except OSError as error:
        raise SettingsError(f".env cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        faults = (f"  {variable(fault['loc'])}: {_sentence(fault)}" for fault in error.errors())
        raise SettingsError("These settings are invalid:\n" + "\n".join(faults)) from None


def ignored() -> list[str]:
    """Return a sentence for each name in the environment and `.env` that looks like a setting and is none."""
    return [
        f"{name} is not a setting, so it is ignored; {nearest(name, Settings)}".removesuffix("; ")
        for name in unknown(*sources(Settings))
    ]


def _sentence(fault: Mapping[str, Any]) -> str:
    if fault["type"] != "extra_forbidden":
        return message(fault)
    return f"is unknown; {nearest(variable(fault['loc']), Settings)}".removesuffix("; ")


def require(settings: Settings, *, only_callbacks: bool = False) -> None:
    """Raise SettingsError that names every setting without which the service cannot run.

    `only_callbacks`: for the role that only receives callbacks.
    """
    missing = []
    if settings.database_direct_url and not (settings.ledger_url.shared and settings.listening_url.shared):
        missing.append("  DARKROOM_DATABASE_URL and __DIRECT_URL: the direct URL is for PostgreSQL alone")
    if settings.ledger_url.shared and not settings.secret_keys:
        missing.append("  DARKROOM_SECRET_KEYS: with PostgreSQL every replica needs the same keys")
    missing += settings.gateways.faults()
    if not only_callbacks:
        missing += _missing_for_the_rest(settings)
    if missing:
        raise SettingsError("These settings are missing:\n" + "\n".join(missing))


def _missing_for_the_rest(settings: Settings) -> list[str]:
    missing = []
    if not settings.s3.bucket:
        missing.append("  DARKROOM_S3__BUCKET: the bucket that the archive is kept in")
    if settings.ledger_url.shared and settings.notify.url and not settings.notify.secrets:
        missing.append("  DARKROOM_NOTIFY__SECRETS: with PostgreSQL every replica needs the same secrets")
    if (settings.s3.access_key is None) != (settings.s3.secret_key is None):
        missing.append("  DARKROOM_S3__ACCESS_KEY and DARKROOM_S3__SECRET_KEY: set both, or neither")
    if settings.cors_origins and not settings.api_tokens:
        missing.append("  DARKROOM_API_TOKENS: pages of DARKROOM_CORS_ORIGINS use the API with a token")
    if not settings.gateways.configured():
        keys = (variable(("gateways", name, "api_key")) for name in type(settings.gateways).model_fields)
        missing.append(f"  {' or '.join(keys)}: the key of at least one gateway")
    return missing
