"""``make demo``: bring the example shop up, place real orders through the gateway, show what happened.

In a terminal the mesh stays up until Ctrl+C; otherwise it is taken down and the exit code tells how it went.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from meshctl.adapters.port_owner import describe, port_is_free, port_owner

_ROOT = Path(__file__).parents[1]
_TOPOLOGY = "mesh.example.yaml"
_GATEWAY_PORT = 8080
_ALTERNATIVES = range(18080, 18180)
_ORDERS = 40
_RATE = 20

_NEXT = """
Try next, in another terminal in this folder (with .venv/bin on your PATH; MESHCTL_FILE=mesh.example.yaml):

  meshctl status                                   every service, instance and sidecar
  meshctl logs -f checkout                         what checkout prints
  {curl:<47}  the shop's front page
  meshctl call --from checkout payment/health      a request as checkout would send it
  meshctl proxy config checkout routes             what its Envoy was told
  meshctl certs list                               who everybody is
"""


def main() -> int:
    """Run the demo; its exit code."""
    environ = dict(os.environ)
    environ["MESHCTL_FILE"] = _TOPOLOGY
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', '')}"
    if "GATEWAY_PORT" not in environ and not port_is_free("127.0.0.1", _GATEWAY_PORT):
        port = next(port for port in _ALTERNATIVES if port_is_free("127.0.0.1", port))
        print(f"{describe(_GATEWAY_PORT, port_owner(_GATEWAY_PORT))}: taking {port} instead", flush=True)
        environ["GATEWAY_PORT"] = str(port)
    # Ctrl+C goes to every process of the terminal's group: the commands end by themselves, and this one cleans up.
    interrupted = False
    try:
        code = _show(environ)
        if code == 0 and sys.stdin.isatty() and sys.stdout.isatty():
            print("The mesh stays up until Ctrl+C.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        interrupted = True
        code = 130
    print(flush=True)
    down = _run(environ, "down")
    return 0 if interrupted and down == 0 else code or down


def _show(environ: dict[str, str]) -> int:
    _say("meshctl up -d --wait", "eight services, a sidecar each, mTLS between them")
    code = _run(environ, "up", "-d", "--wait")
    if code != 0:
        return code
    url = json.loads(_output(environ, "status", "-o", "json"))["gateway"]["url"]
    _say("meshctl status", "")
    _run(environ, "status")
    _say(f"{_ORDERS} orders through {url}", f"{_RATE} a second; the path of the last one, caller by caller")
    client = [sys.executable, "examples/shop/place_orders.py", "--url", url]
    orders = subprocess.run(
        [*client, "--count", str(_ORDERS), "--rate", str(_RATE)], cwd=_ROOT, env=environ, check=False
    ).returncode
    print(_NEXT.format(curl=f"curl -s {url}/"), flush=True)
    return orders


def _say(what: str, why: str) -> None:
    print(f"\n$ {what}" + (f"   # {why}" if why else ""), flush=True)


def _run(environ: dict[str, str], *words: str) -> int:
    return subprocess.run([sys.executable, "-m", "meshctl", *words], cwd=_ROOT, env=environ, check=False).returncode


def _output(environ: dict[str, str], *words: str) -> str:
    argv = [sys.executable, "-m", "meshctl", *words]
    return subprocess.run(argv, cwd=_ROOT, env=environ, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
