"""Every error that surgery raises on purpose.

SurgeryError                    exit code 1
├── ParityError                 the exported graph answers differently
├── TrainingError               training cannot go on (NaN loss, …)
└── UserError                   exit code 2: the user can fix it, no traceback is shown
    ├── ConfigError             an option or a combination of options
    ├── DataError               a dataset, a split, a mask
    ├── ImageError              one image that cannot be decoded
    │   └── PixelsError         one image of more pixels than are taken
    ├── WeightsError            pretrained weights that cannot be had or do not fit
    ├── ModelNotFoundError      a name, version or alias that the store does not hold
    ├── StoreError              a store folder, a manifest or a file of a version
    └── DiskFullError           no room for a cache, a checkpoint or a version

An error says where, what was found, what is allowed (`message`) and what to do next (`hint`).
`code` is its stable name for machines: the HTTP error body and `--json` carry it.
"""

from __future__ import annotations

from typing import ClassVar


class SurgeryError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: Where it is, what was found, what is allowed. One line, or one line per problem.
        hint: What to do next, as an instruction; may be empty.
    """

    code: ClassVar[str] = "internal_error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ParityError(SurgeryError):
    code = "parity_failed"


class TrainingError(SurgeryError):
    code = "training_failed"


class UserError(SurgeryError):
    code = "bad_input"
    exit_code = 2


class ConfigError(UserError):
    code = "bad_config"


class DataError(UserError):
    code = "bad_data"


class ImageError(UserError):
    code = "bad_image"


class PixelsError(ImageError):
    code = "too_many_pixels"


class WeightsError(UserError):
    code = "weights_unavailable"


class ModelNotFoundError(UserError):
    code = "model_not_found"


class StoreError(UserError):
    code = "bad_store"


class DiskFullError(UserError):
    code = "disk_full"
