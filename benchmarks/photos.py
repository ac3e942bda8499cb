"""Times the photo variants as a client sees them.

    make build && .venv/bin/python benchmarks/photos.py [--rounds 15]

Starts `bin/refersam up` on loopback and asks the variants in turn, one request at a time: one phrase,
another phrase about the same picture, five phrases. Each picture is new to the service: a sample of the page
with a few pixels changed. All figures are of one run; the last column is the ratio to one phrase about a new
picture. Memory is the proportional set size of tritonserver and of the processes that it has started, after
all rounds.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from timing import ROOT

PHRASES = ("the dog", "the thing on the left", "the biggest animal", "a red car", "the person", "both birds")
ONE, FIVE, AGAIN = "one phrase", "five phrases", "another phrase, same picture"
TARGETS = {ONE: 1.0, FIVE: 1.2, AGAIN: 0.3}  # seconds
READY_TARGET, MEMORY_TARGET = 20.0, 3.0  # seconds, GB


def pictures(folder: Path, count: int) -> list[bytes]:
    """JPEGs that no cache knows yet."""
    rng = np.random.default_rng()
    samples = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.jpg"))]
    made = []
    for i in range(count):
        pixels = samples[i % len(samples)].copy()
        pixels[:8, :8] = rng.integers(0, 256, (8, 8, 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def ask(url: str, picture: bytes, variant: str, phrases: tuple[str, ...]) -> float:
    """Seconds until the whole answer is there."""
    boundary = uuid.uuid4().hex
    parts = [("variant", variant.encode(), "")] + [("phrase", phrase.encode(), "") for phrase in phrases]
    parts.append(("image", picture, '; filename="picture.jpg"'))
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{rest}\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data, rest in parts
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(url + "/v1/segment", body + f"--{boundary}--\r\n".encode(), headers)
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    took = time.perf_counter() - began
    if len(answer["results"]) != len(phrases):
        sys.exit(f"{len(answer['results'])} results for {len(phrases)} phrases")
    return took


def await_ready(url: str, process: subprocess.Popen[bytes], patience: float = 120) -> float:
    """Seconds until /readyz answers 200."""
    began = time.perf_counter()
    while process.poll() is None and time.perf_counter() - began < patience:
        try:
            with urllib.request.urlopen(url + "/readyz", timeout=5):
                return time.perf_counter() - began
        except urllib.error.URLError:
            time.sleep(0.05)
    sys.exit(f"the service was not ready within {patience:.0f} s, or ended (status {process.poll()})")


def variants_of(url: str) -> list[str]:
    with urllib.request.urlopen(url + "/v1/models", timeout=10) as response:
        return [model["variant"] for model in json.load(response)["models"]]


def descendants(pid: int) -> list[int]:
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [each for child in children for each in (child, *descendants(child))]


def memory(pids: list[int]) -> float:
    """Proportional set size in GB: pages that processes share count once."""
    lines = "".join(Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    return sum(int(line.split()[1]) for line in lines.splitlines() if line.startswith("Pss:")) / 1e6


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="pictures per variant (%(default)s)")
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository", help="%(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refersam-benchmark-") as data:
        address = f"127.0.0.1:{free_port()}"
        command = [ROOT / "bin" / "refersam", "up", "--listen", address, "--data", data]
        environment = os.environ | {"REFERSAM_LOG_LEVEL": "ERROR", "REFERSAM_ADMIN_LISTEN": "127.0.0.1:0"}
        process = subprocess.Popen(
            [*command, "--repository", args.repository.resolve()],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        try:
            measure(f"http://{address}", process, args.rounds)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def measure(url: str, process: subprocess.Popen[bytes], rounds: int) -> None:
    ready = await_ready(url, process)
    variants = variants_of(url)
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    fresh = iter(pictures(ROOT / "gateway" / "web" / "samples", 2 * rounds * len(variants)))
    for _ in range(rounds):
        for variant in variants:
            picture = next(fresh)
            for what, phrases in ((ONE, PHRASES[:1]), (AGAIN, PHRASES[1:2])):
                times[variant, what].append(ask(url, picture, variant, phrases))
            times[variant, FIVE].append(ask(url, next(fresh), variant, PHRASES[:5]))
    print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}, {rounds} rounds")
    print(f"ready after {ready:.1f} s (target {READY_TARGET:.0f} s)")
    print(f"tritonserver takes {memory(descendants(process.pid)):.2f} GB (target {MEMORY_TARGET:.0f} GB)")
    print("| variant | request | p50 | slowest | target of p50 | of one phrase |\n|---|---|---|---|---|---|")
    for variant in variants:
        base = statistics.median(times[variant, ONE])
        for what, target in TARGETS.items():
            taken = times[variant, what]
            p50 = statistics.median(taken)
            cells = (variant, what, f"{p50:.2f} s", f"{max(taken):.2f} s", f"{target} s", f"{p50 / base:.2f}")
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
