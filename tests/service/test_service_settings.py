"""Settings come from the environment, and every mistake is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import Settings
from surgery.artifact.errors import ConfigError


def test_defaults_are_the_store_beside_the_code() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.models == Path(__file__).resolve().parents[2] / "models"


def test_every_field_has_its_variable() -> None:
    settings = Settings.from_environment(
        {
            "SURGERY_MODELS": "/srv/models",
            "SURGERY_DEVICE": "cpu",
            "SURGERY_THREADS": "3",
            "SURGERY_MAX_BODY_MIB": "1.5",
            "SURGERY_MAX_PIXELS": "10",
            "SURGERY_TIMEOUT_S": "0.5",
            "SURGERY_MAX_CONCURRENCY": "2",
            "SURGERY_MAX_EXTRA_MODELS": "7",
            "SURGERY_POLL_S": "0",
        }
    )
    assert settings == Settings(Path("/srv/models"), "cpu", 3, 1.5, 10, 0.5, 2, 7, 0.0)
    assert settings.max_body_bytes == 1_572_864


def test_all_mistakes_are_named_together() -> None:
    wrong = {
        "SURGERY_DEVICE": "tpu",
        "SURGERY_THREADS": "many",
        "SURGERY_TIMEOUT_S": "nan",
        "SURGERY_MAX_BODY_MIB": "inf",
        "SURGERY_MAX_PIXELS": "0",
        "SURGERY_POLL_S": "-1",
    }
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment(wrong)
    for variable in wrong:
        assert variable in caught.value.message
