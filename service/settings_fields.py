"""The settings of the service, with their defaults, bounds and descriptions."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field


class SettingsFields(BaseModel):
    """The fields of `service.settings.Settings`, which reads them."""

    # Where and what
    host: str = Field("127.0.0.1", description="Address the API binds.")
    port: int = Field(8000, ge=0, le=65535, description="Port the API binds; 0 takes a free one.")
    data_dir: Path = Field(
        Path("anamnesis-data"), description="Where `anamnesis up` keeps its store and sockets."
    )
    workers: int = Field(1, ge=1, le=64, description="API processes that share the port.")
    redis_url: str | None = Field(
        None,
        description="Redis 7 or Valkey to use; `anamnesis up` starts its own if this is unset. "
        "Behind Sentinel: `redis+sentinel://host:port,host:port,host:port/master-name/0`.",
    )
    redis_url_file: Path | None = Field(
        None, description="File that holds `ANAMNESIS_REDIS_URL`, which may hold a password."
    )
    redis_password_file: Path | None = Field(
        None, description="File with the password of the user that the store's URL names."
    )
    redis_ca_file: Path | None = Field(
        None,
        description="Certificate authorities (PEM) for a `rediss://` store; the system's if unset.",
    )
    wait_replicas: int = Field(
        0,
        ge=0,
        le=16,
        description="How many replicas of the store must have a normal batch before it is "
        "acknowledged. With at least one, a failover loses no acknowledged batch.",
    )
    allow_weak_store: bool = Field(
        default=False,
        description="Accept a store that can lose acknowledged writes (no append-only file, "
        "fsync not on every write, or an eviction policy).",
    )
    log_format: str = Field(
        "console", pattern="^(console|json)$", description="`console` or `json`."
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="Lowest level that is logged."
    )
    metrics_dir: Path | None = Field(
        None,
        description="Folder through which API processes on one machine share their metrics; "
        "`anamnesis up` makes one.",
    )
    cache_dir: Path | None = Field(
        None,
        description="Folder in which API processes keep copies of the champions they serve, to "
        "start scoring while the store is away; `anamnesis up` uses one in its data directory.",
    )

    # Access
    tls_cert: Path | None = Field(
        None, description="Certificate chain (PEM) of the API, which then serves only HTTPS."
    )
    tls_key: Path | None = Field(
        None, description="Private key (PEM) of `ANAMNESIS_TLS_CERT`, if that file lacks it."
    )
    fast_lane: bool = Field(
        default=True,
        description="Answer plain score requests without the web framework. If false, uvicorn and "
        "FastAPI answer all: slower, and with uvicorn's own limits on connections.",
    )
    insecure: bool = Field(
        default=False,
        description="While there are no API keys, allow requests from other machines too. Requests "
        "that come before the keys were read from the store are allowed as well.",
    )
    allowed_hosts: str | None = Field(
        None,
        description="Host names, separated by commas, under which clients may address a service "
        "without API keys; the names of this machine's loopback are always among them.",
    )
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*/?$",
        description="Path, such as `/sense`, that a proxy removes before it forwards a request.",
    )
    admin_key_file: Path | None = Field(
        None,
        description="File with an API key that has every scope, whatever keys the store has. The "
        "key has at least 32 characters.",
    )
    metrics_key_file: Path | None = Field(
        None, description="File with an API key that has the scope `metrics`, for Prometheus."
    )
    signing_key_file: Path | None = Field(
        None,
        description="Ed25519 private key (PEM) that signs versions: for workers, and for API "
        "processes that import versions.",
    )
    trusted_keys_file: Path | None = Field(
        None,
        description="Ed25519 public keys (PEM, one after the other). Only versions signed with one "
        "of these keys are served and trained further.",
    )
    url: str = Field("http://127.0.0.1:8000", description="Where commands find the service.")
    key: str | None = Field(
        None, repr=False, description="API key that the command line sends; no process needs it."
    )
    key_file: Path | None = Field(
        None,
        description="File with the API key that the command line sends. If neither this nor "
        "`ANAMNESIS_KEY` is set, it sends the key in `ANAMNESIS_ADMIN_KEY_FILE`.",
    )
    ca_file: Path | None = Field(
        None,
        description="Certificate authorities (PEM) by which the command line verifies the service.",
    )

    # Notifications
    webhook_url: str | None = Field(
        None,
        pattern="^https?://",
        description="URL that gets a message when an incident opens or closes (CloudEvents).",
    )
    webhook_secret_file: Path | None = Field(
        None,
        description="File with the secrets that sign messages (Standard Webhooks), one per line.",
    )
    public_url: str | None = Field(
        None,
        pattern="^https?://",
        description="URL of the service for people; messages link to it.",
    )

    # Bounds
    max_body_bytes: int = Field(32 * 2**20, ge=1024, description="Largest request body, bytes.")
    max_detectors: int = Field(1000, ge=1, description="Most detectors the service holds.")
    max_entities: int = Field(100_000, ge=1, description="Most detectors that templates make.")
    max_keys: int = Field(1000, ge=1, description="Most API keys the service holds.")
    bodies_max_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        description="Most bytes of request bodies that an API process holds at a time. One API "
        "key may take half of them. Bodies of up to 64 KiB do not count.",
    )
    unsent_max_bytes: int = Field(
        512 * 2**20,
        ge=2**20,
        description="Most bytes of answers that an API process holds for clients that do not read "
        "them. Above that, the clients with the most bytes are disconnected.",
    )
    max_connections: int = Field(
        1000, ge=1, description="Most connections that an API process serves at a time."
    )
    buffer_max_vectors: int = Field(
        1_000_000, ge=32, description="Most vectors a detector buffers, parked ones included."
    )
    buffer_max_bytes: int = Field(
        512 * 2**20, ge=1024, description="Most bytes a detector buffers, parked ones included."
    )
    experience_max_vectors: int = Field(
        200_000, ge=32, description="Most vectors that one retraining takes from the buffer."
    )
    quarantine_max_vectors: int = Field(
        100_000, ge=1, description="Most vectors of a detector that admission holds back."
    )
    quarantine_max_bytes: int = Field(
        64 * 2**20, ge=1024, description="Most bytes of a detector that admission holds back."
    )
    sender_novel_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Largest share of a detector's buffer that one API key may fill with vectors "
        "of a new regime, if several keys send to it. Further ones wait in quarantine.",
    )
    versions_kept: int = Field(
        5,
        ge=1,
        description="Promoted versions whose artifacts are kept, beside champion and parent.",
    )
    artifact_max_bytes: int = Field(
        256 * 2**20, ge=1024, description="Largest version artifact that is loaded or imported."
    )
    loaded_bytes: int | None = Field(
        None,
        ge=2**20,
        description="Most bytes of memory for champions in an API process: one is loaded when a "
        "request needs it, and the least recently used are unloaded. Unset: all are loaded.",
    )
    events_kept: int = Field(1000, ge=1, description="Latest anomalies kept for each detector.")
    labels_kept: int = Field(10_000, ge=1, description="Latest labels kept for each detector.")
    webhook_per_minute: int = Field(
        60, ge=1, le=6000, description="Most messages a minute to the webhook's receiver."
    )
    pinned_loaded: int = Field(8, ge=1, description="Most pinned versions in memory.")

    # Time
    poll_seconds: float = Field(
        1.0, gt=0, le=2, description="How often an API process asks the store for new versions."
    )
    drain_seconds: float = Field(10.0, ge=0, description="Longest wait for requests at shutdown.")
    header_seconds: float = Field(
        10.0, gt=0, description="Longest a client may take to send a request's head."
    )
    body_seconds: float = Field(
        10.0,
        gt=0,
        description="Longest a client may take for each 64 KiB of a body that it sends or reads.",
    )
    idle_seconds: float = Field(75.0, gt=0, description="Longest a connection waits for a request.")
    lease_seconds: float = Field(
        5.0, ge=0.05, description="How long a worker's lease on a detector lasts after a renewal."
    )
    tick_seconds: float = Field(0.5, gt=0, description="Pause between two checks for work.")
    training_stall_seconds: float = Field(
        120.0, gt=0, description="A training without progress for this long is stopped."
    )
    training_seconds: float = Field(
        3600.0,
        gt=0,
        description="Most processor time of each thread of a training; by the clock it may take "
        "four times as long. A training that takes longer is stopped, and counts as failed.",
    )
    training_drain_seconds: float = Field(
        0.0, ge=0, description="How long a worker that has to end goes on with its training."
    )
    training_memory_bytes: int = Field(
        8 * 2**30, ge=2**28, description="Most memory of a training."
    )
    training_threads: int = Field(
        1, ge=1, le=1024, description="Threads that the trainer computes with."
    )
    training_device: Literal["cpu", "auto", "cuda"] = Field(
        "cpu", description="Where networks are trained; `auto` is a GPU if torch can use one."
    )
    webhook_seconds: float = Field(
        3600.0, gt=0, description="How long a message is retried; then it is dropped and counted."
    )
    rewrite_seconds: float = Field(
        3600.0, gt=0, description="Longest time that deleted data stays in the append-only file."
    )

    # For tests
    crash_point: str | None = Field(
        None,
        pattern=r"^[a-z_.-]+:[1-9][0-9]*$",
        description="See `service.crash_points`.",
        json_schema_extra={"for_tests": True},
    )
