"""Settings come from the environment and a file, and every mistake is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import Settings, read_settings, read_tokens
from surgery.artifact.errors import ConfigError


@pytest.fixture(autouse=True)
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SURGERY_MODELS")


def test_defaults_are_the_store_beside_the_code() -> None:
    assert read_settings().models == Path(__file__).resolve().parents[2] / "models"


def test_every_setting_has_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("three\nfour\n")
    values = {
        "models": Path("/srv/models"), "host": "::1", "device": "cpu", "threads": 3, "tokens": ("one", "two"),
        "tokens_file": tmp_path / "tokens", "max_body_mib": 1.5, "max_pixels": 10, "max_pixels_held": 20, "max_images": 2,
        "max_concurrency": 2, "max_waiting": 0, "body_timeout_s": 2.5, "timeout_s": 0.5, "max_batch": 4,
        "max_lanes": 3, "max_extra_mib": 7.0, "graph_cache": Path("/var/cache/graphs"), "graph_cache_mib": 9.0,
        "poll_s": 0.0, "collect": True, "collect_below": 0.01, "spool": Path("/srv/spool"), "spool_images": 7,
        "spool_mib": 8.0, "tracing": True, "log_format": "json",
    }  # fmt: skip
    assert set(values) == set(Settings.model_fields)
    for name, value in values.items():
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        monkeypatch.setenv(f"SURGERY_{name.upper()}", text)
    settings = read_settings()
    assert settings.model_dump() == values
    assert settings.max_body_bytes == 1_572_864
    assert read_tokens(settings) == ("one", "two", "three", "four")


def test_the_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text("threads: 3\nmax_images: 5\ntokens: [one]\n")
    monkeypatch.setenv("SURGERY_CONFIG", str(file))
    monkeypatch.setenv("SURGERY_THREADS", "2")
    settings = read_settings()
    assert (settings.threads, settings.max_images, settings.tokens) == (2, 5, ("one",))


def test_all_mistakes_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "SURGERY_DEVICE": "tpu",
        "SURGERY_THREADS": "many",
        "SURGERY_TIMEOUT_S": "nan",
        "SURGERY_MAX_BODY_MIB": "inf",
        "SURGERY_MAX_PIXELS": "0",
        "SURGERY_POLL_S": "-1",
        "SURGERY_TOKENS": "sesame,,open",
    }
    for variable, value in wrong.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        read_settings()
    for variable in wrong:
        assert variable in caught.value.message
    assert "sesame" not in caught.value.message


@pytest.mark.parametrize("text", ["max_pixel: 3\n", "- 1\n", "a: [\n", "just words\n"])
def test_a_file_of_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(text)
    monkeypatch.setenv("SURGERY_CONFIG", str(file))
    with pytest.raises(ConfigError, match="SURGERY_CONFIG"):
        read_settings()


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SURGERY_CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_settings()
    monkeypatch.delenv("SURGERY_CONFIG")
    monkeypatch.setenv("SURGERY_TOKENS_FILE", str(tmp_path / "none.txt"))
    with pytest.raises(ConfigError, match="TOKENS_FILE"):
        read_settings()


def test_every_setting_is_documented_with_its_default() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text("utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name, field in Settings.model_fields.items():
        assert name in rows
        if isinstance(field.default, int | float):
            assert (
                f"| `{field.default:g}` |" in rows[name]
                or f"| `{str(field.default).lower()}` |" in rows[name]
            )
