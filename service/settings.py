"""Every setting of the service: from the environment, from a file, or its default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from platformdirs import user_cache_path
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from surgery.artifact.errors import ConfigError

BESIDE_THE_CODE = Path(__file__).resolve().parents[1] / "models"
PREFIX = "SURGERY_"
CONFIG = "SURGERY_CONFIG"
"""Variable with the path of a YAML file of settings, by their names below."""
HINT = "docs/serving.md lists every setting."

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """What an operator may set. `SURGERY_` and the name in capitals is the variable; it goes before the file.

    Raises:
        ValidationError: If a value is out of its range; `read_settings` says it kindly.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    models: Path = BESIDE_THE_CODE
    """Root of the model store. By default models/ beside the code, in a checkout and in a bento."""
    host: str = ""
    """Address to listen on; by default 127.0.0.1 without tokens, else 0.0.0.0. `--host` goes before."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; `auto` takes CUDA where it can be opened."""
    threads: int = Field(default=0, ge=0)
    """Threads inside one inference; 0 leaves it to onnxruntime."""
    tokens: Annotated[tuple[str, ...], NoDecode] = ()
    """Bearer tokens, separated by commas, one of which a request must carry; none: nobody is asked."""
    tokens_file: Path | None = None
    """File with one more token a line."""
    max_body_mib: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 32.0
    """Largest request body in MiB; past it 413."""
    max_pixels: int = Field(default=50_000_000, ge=1)
    """Largest image in pixels, read from its header before anything is decoded; past it 422."""
    max_pixels_held: int = Field(default=100_000_000, ge=1)
    """Pixels of all images that are decoded at once, 3 bytes each; others wait. At least `max_pixels`."""
    max_images: int = Field(default=16, ge=1)
    """Images in one request; past it 422."""
    max_concurrency: int = Field(default=8, ge=1)
    """Requests whose images are decoded and answered at once."""
    max_waiting: int = Field(default=56, ge=0)
    """Further requests that send their body or wait for their turn; past both 429."""
    body_timeout_s: Seconds = 10.0
    """Seconds from a request's headers to the end of its body; past it 408."""
    timeout_s: Seconds = 30.0
    """Seconds from a request's headers to its answer; past it 504."""
    max_batch: int = Field(default=32, ge=1)
    """Images in one run of a network; fewer where measuring at the start says that more are not faster."""
    max_lanes: int = Field(default=4, ge=1)
    """Runs side by side on the CPU where images wait, each on a share of the cores; 1: one after another."""
    max_extra_mib: float = Field(default=1024.0, ge=0)
    """Graph files of versions kept loaded beside the production ones; the least recently used go."""
    graph_cache: Path = user_cache_path("surgery") / "graphs"
    """Folder of the graphs as onnxruntime optimised them for this processor; workers share their memory."""
    graph_cache_mib: float = Field(default=2048.0, ge=0)
    """Bound on that folder; 0 keeps none."""
    poll_s: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    """Seconds between two looks at the store for promotions; 0 looks once, at the start."""
    collect: bool = False
    """Keep images that are unlike the training images in the spool, as they were sent; else none is kept."""
    collect_below: float = Field(default=0.05, gt=0, le=1)
    """Novelty below which an image is kept."""
    spool: Path | None = None
    """Folder of the images that are kept; None is spool/ beside the model store."""
    spool_images: int = Field(default=1000, ge=1)
    """Images kept of each model; the oldest go."""
    spool_mib: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 512.0
    """Bound on what is kept of each model, MiB; the oldest go."""
    tracing: bool = False
    """Leave BentoML's OpenTelemetry spans on, as its own configuration asks; they cost each request time."""
    log_format: Literal["text", "json"] = "text"
    """Form of the lines about requests."""

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mib * 2**20)

    @field_validator("tokens", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("tokens")
    @classmethod
    def _none_empty(cls, tokens: tuple[str, ...]) -> tuple[str, ...]:
        if not all(
            token and token.isascii() and token.isprintable() and " " not in token for token in tokens
        ):
            raise ValueError("each token must be printable ASCII without spaces, and none empty")
        return tokens

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        """Read arguments, then the environment, then the file that SURGERY_CONFIG names."""
        path = os.environ.get(CONFIG)
        file = (YamlConfigSettingsSource(settings_cls, yaml_file=path),) if path else ()
        return init_settings, env_settings, *file


def read_settings() -> Settings:
    """Return the settings that environment and file ask for.

    Raises:
        ConfigError: With every setting that holds something else than it should.
    """
    path = os.environ.get(CONFIG)
    try:
        if path and not Path(path).is_file():
            raise ConfigError(f"{CONFIG}={path!r} is not a file", HINT)
        settings = Settings()
        read_tokens(settings)
        return settings
    except ValidationError as error:
        lines = [_problem(entry) for entry in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines), HINT) from None
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:  # whatever else a file can hold
        raise ConfigError(f"{CONFIG}={path!r} cannot be read as YAML settings ({error})", HINT) from error


def read_tokens(settings: Settings) -> tuple[str, ...]:
    """Return the tokens of setting and file.

    Raises:
        ConfigError: If the file cannot be read or holds none.
    """
    if settings.tokens_file is None:
        return settings.tokens
    variable = f"{PREFIX}TOKENS_FILE"
    try:
        lines = settings.tokens_file.read_text("ascii").split()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{variable}={str(settings.tokens_file)!r} cannot be read ({error})", HINT
        ) from error
    if not lines:
        raise ConfigError(f"{variable}={str(settings.tokens_file)!r} holds no token", "Write one a line.")
    return (*settings.tokens, *lines)


def _problem(entry: Any) -> str:
    """Say one mistake without repeating a secret."""
    name = str(entry["loc"][0]) if entry["loc"] else "settings"
    value = "" if name.startswith("tokens") else f"={entry['input']!r:.60}"
    if entry["type"] == "extra_forbidden":
        return f"{name!r} in the file of {CONFIG} is no setting"
    return f"{PREFIX}{name.upper()}{value}: {entry['msg']}"
