"""`make demo`: the whole line on drawn streets, from VGG16's ImageNet weights to a mask over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cyclopts import App
from rich.console import Console
from rich.table import Table

from surgery.artifact.errors import SurgeryError, UserError

ROOT = Path(__file__).resolve().parents[2]
"""Where bentofile.yaml lies: `bentoml serve` without arguments runs here."""
NAME = "demo-cars"
OPTIONS = (
    *("--task", "segment", "--classes", "car", "--ignore", "unlabelled"),
    *("--backbone", "vgg16", "--head", "deconv", "--promote"),
)
UNSEEN_SEED = 2_000_003
"""Scenes from here on are drawn for nobody else: training and validation take other seeds."""
LEAST_CARS = 0.04
"""The unseen scene shows cars on at least this share of its pixels."""
READY_TIMEOUT_S = 120
LOG_LINES = 30
"""Lines of the server's log that are shown where it does not start."""
PIPE_WIDTH = 110
"""Width of the table where there is no terminal."""


@dataclass(frozen=True)
class Scale:
    """How much is drawn and learnt.

    Attributes:
        size: (width, height) of the scenes in pixels.
        train: Scenes for training.
        val: Scenes for validation.
        epochs: Passes over the training scenes.
    """

    size: tuple[int, int]
    train: int
    val: int
    epochs: int


SCALES = {"full": Scale((320, 240), 100, 32, 10), "small": Scale((96, 64), 8, 4, 2)}

app = App(name="demo", help="Fine-tune VGG16 for cars, export, prove, serve and ask over HTTP.")


@app.default
def demo(*, size: Literal["full", "small"] = "full", out: Path = Path("demo")) -> None:
    """Run the whole line once and show what came out.

    The model goes into the store like any other ($SURGERY_MODELS, else models/), so that
    `bentoml serve` serves it afterwards; everything else goes into `out`.

    Args:
        size: `full`, or `small`, which shows that everything works and learns next to nothing.
        out: Folder for the scenes, the run, the pictures and summary.json.

    Raises:
        SurgeryError: If a step fails; the message says which and shows what it said.
    """
    console = Console(width=None if Console().is_terminal else PIPE_WIDTH)
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").unlink(missing_ok=True)
    summary = run_line(out.absolute(), SCALES[size], console)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
    show(summary, console)


def run_line(out: Path, scale: Scale, console: Console) -> dict[str, Any]:
    """Draw, fine-tune, evaluate, serve and ask; return what came out."""
    seconds: dict[str, float] = {}
    data, store = out / "data", Path(os.environ.get("SURGERY_MODELS", "models")).absolute()
    with tempfile.TemporaryDirectory(prefix=".work-", dir=out) as work:
        rooms = {"SURGERY_MODELS": str(store), "SURGERY_RUNS": str(out / "runs")}
        rooms |= {"SURGERY_CACHE": f"{work}/cache", "BENTOML_HOME": f"{work}/bentoml"}
        environment = os.environ | rooms | {"BENTOML_DO_NOT_TRACK": "True"}
        with timed(seconds, "draw"):
            draw_scenes(data, scale, console)
        with timed(seconds, "fine_tune"):
            wish = ["finetune", str(data), "--name", NAME, *OPTIONS, "--epochs", str(scale.epochs)]
            tuned = run_surgery(wish, environment, console)
        ref = f"{NAME}@{tuned['version']}"
        with timed(seconds, "evaluate"):
            scored = run_surgery(["evaluate", ref, str(data)], environment, console)
        image, truth = draw_unseen(out / "image.png", scale)
        with serving(environment, out / "server.log", seconds, console) as url, timed(seconds, "ask"):
            mask = ask(url, ref, out / "image.png", out / "mask.png", console)
        with timed(seconds, "check"):
            checked = check_answer(store, ref, image, mask, truth, out / "overlay.png")
    seconds["total"] = sum(seconds.values())
    return {
        "iou_before": tuned["scores"]["before"]["iou"],
        "iou_after": scored["scores"]["iou"],
        "parity": tuned["parity"] | checked,
        "seconds": {step: round(value, 1) for step, value in seconds.items()},
        "model": ref,
        "store": str(store),
        "pictures": [str(out / name) for name in ("image.png", "mask.png", "overlay.png")],
    }


@contextlib.contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Note how long a step takes."""
    started = time.monotonic()
    yield
    seconds[step] = time.monotonic() - started


def draw_scenes(data: Path, scale: Scale, console: Console) -> None:
    """Draw the sample set."""
    from surgery.data.samples.cars import write_cars

    say(console, f"drawing {scale.train} + {scale.val} street scenes with exact masks into {short(data)}")
    write_cars(data, n_train=scale.train, n_val=scale.val, size=scale.size)


def draw_unseen(path: Path, scale: Scale) -> tuple[Any, Any]:
    """Draw a scene with cars that is in no split; return picture and mask of cars (bool)."""
    from PIL import Image

    from surgery.data.samples.canvas import CAR
    from surgery.data.samples.cars import draw_street

    seed = UNSEEN_SEED
    image, mask = draw_street(seed, size=scale.size)
    while (mask == CAR).mean() < LEAST_CARS:
        seed += 1
        image, mask = draw_street(seed, size=scale.size)
    Image.fromarray(image).save(path)
    return image, mask == CAR


def run_surgery(arguments: list[str], environment: dict[str, str], console: Console) -> dict[str, Any]:
    """Run a command as a user would, its progress going to the terminal; return what it answers.

    Raises:
        SurgeryError: If it fails; it has said why itself.
    """
    say(console, f"$ surgery {shlex.join(short(part) for part in arguments)}")
    command = [sys.executable, "-m", "surgery", *arguments, "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            answer, _ = process.communicate()
        except KeyboardInterrupt:  # the command got it too and puts its things in order
            process.communicate()
            raise
    if process.returncode:
        kind = UserError if process.returncode == UserError.exit_code else SurgeryError
        raise kind(f"surgery {arguments[0]} failed (exit code {process.returncode}); see above")
    found: dict[str, Any] = json.loads(answer)
    return found


@contextlib.contextmanager
def serving(
    environment: dict[str, str], log: Path, seconds: dict[str, float], console: Console
) -> Iterator[str]:
    """Run `bentoml serve` on a free port of this machine alone; yield its address.

    Raises:
        SurgeryError: If it does not become ready; with the end of its log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["serve", "--host", "127.0.0.1", "--port", str(port)]
    say(console, f"$ bentoml {shlex.join(options)}")
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", *options], cwd=ROOT, env=environment,
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        with timed(seconds, "start_server"):
            wait_until_ready(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        with timed(seconds, "stop_server"):
            stop(process)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the server says that a model can answer.

    Raises:
        SurgeryError: If it ends before, or takes longer than `READY_TIMEOUT_S`.
    """
    end = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), request(f"{url}/readyz"):
            return
        time.sleep(0.2)
    ended = process.returncode is not None
    state = f"ended with exit code {process.returncode}" if ended else f"took over {READY_TIMEOUT_S} s"
    lines = "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-LOG_LINES:])
    raise SurgeryError(f"bentoml serve is not ready: it {state}\n{lines}", f"The whole log: {log}.")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and all it started."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def request(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
    """Open an address on this machine, past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(urllib.request.Request(url, body, headers or {}), timeout=60)


def ask(url: str, ref: str, image: Path, mask: Path, console: Console) -> Any:
    """Post an image, write the returned mask and return it (h, w).

    Raises:
        SurgeryError: If the answer is an error.
    """
    from surgery.artifact.image import read_mask

    address = f"{url}/predict?model={ref}"
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    shown = " ".join(f"-H '{key}: {value}'" for key, value in headers.items())
    say(console, f"$ curl --data-binary @{short(image)} {shown} '{address}' -o {short(mask)}")
    try:
        with request(address, image.read_bytes(), headers) as reply:
            mask.write_bytes(reply.read())
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        raise SurgeryError(f"the service answered {error.code}: {said}") from error
    return read_mask(mask)


def check_answer(store: Path, ref: str, image: Any, mask: Any, truth: Any, overlay: Path) -> dict[str, Any]:
    """Draw the overlay, and compare the mask that was served with the stored graph's and with the truth."""
    from PIL import Image

    from surgery.artifact.answer import draw_overlay
    from surgery.artifact.session import answer_image, open_session
    from surgery.artifact.store import Store

    stored = Store(store).resolve(ref)
    Image.fromarray(draw_overlay(image, mask, stored.manifest.output)).save(overlay)
    own = answer_image(open_session(stored.graph()), stored.manifest, image).mask
    cars = mask > 0
    return {
        "served_equal": float((own == mask).mean()),
        "unseen_iou": float((cars & truth).sum() / max(1, (cars | truth).sum())),
    }


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the table."""
    parity, seconds = summary["parity"], summary["seconds"]
    store, pictures = Path(summary["store"]), [short(path) for path in summary["pictures"]]
    table = Table(title="demo: VGG16 fine-tuned for cars", show_header=False, title_justify="left")
    before, after = summary["iou_before"], summary["iou_after"]
    table.add_row("IoU of car on val", f"{before:.3f} before fine-tuning, {after:.3f} after")
    table.add_row("IoU on the unseen image", f"{parity['unseen_iou']:.3f}")
    table.add_row(
        "parity",
        f"{'passed' if parity['passed'] else 'failed'}: logits up to {parity['largest_logit']:.3g} differ by "
        f"{parity['max_difference']:.1g} at most ({parity['images']} images)\n"
        f"{parity['served_equal']:.2%} of the served mask as the stored graph says",
    )
    steps = [f"{step.replace('_', ' ')} {value:.1f}" for step, value in seconds.items()]
    table.add_row("seconds", "\n".join(steps))
    table.add_row("pictures", "\n".join(pictures))
    name, version = summary["model"].split("@")
    table.add_row("model", f"{summary['model']} in {short(store / name / version)} (production)")
    table.add_row(
        "next",
        f"surgery predict {name} {pictures[0]} --out {short(Path(pictures[0]).parent / 'predicted')}\n"
        f"bentoml serve\n"
        f"surgery models show {name}",
    )
    console.print(table, highlight=False)


def short(path: Path | str) -> str:
    """Return a path below the working directory without the directory."""
    text, here = str(path), f"{Path.cwd()}{os.sep}"
    return text.removeprefix(here)


def say(console: Console, line: str) -> None:
    """Print a line at once, so that it stands before what the next command prints."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.file.flush()


def main(arguments: list[str] | None = None) -> int:
    """Run the demo and return its exit code, as `surgery` does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server must not outlive the demo
    try:
        app(arguments, result_action="return_value")
    except SurgeryError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
