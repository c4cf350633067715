"""Has Envoy look at what no sidecar is to be sent yet: ``envoy --mode validate``.  I/O: runs a process per proxy.

Keys of the mesh are not handed out for that: a pair that is made here and thrown away stands in for them.
"""

from __future__ import annotations

import asyncio
import functools
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from meshctl.adapters.certificates import encode_certificate, encode_key, make_leaf, make_root
from meshctl.envoy.static import build_static
from meshctl.envoy.translate import Credentials, Translated, translate
from meshctl.errors import WaitTimeoutError
from meshctl.plan.model import ProxyPlan

_AT_ONCE = 2
_TIMEOUT = 60.0
_FIRST = 1_767_225_600.0
_FOR_EVER = 100 * 365 * 24 * 3600.0
# The pair's validity, which nobody checks: from 2026 on for a century.

_LOG_PREFIX = re.compile(r"^\[\d{4}-[^\]]*\](?:\[[^\]]*\])* (?:\[[^\]]*\] )?")
_INITIALIZING = re.compile(r"^error initializing (?:config|configuration) '[^']*': ")


@functools.cache
def make_stand_in() -> Credentials:
    """A certificate with its key that is good for nothing but to be loaded."""
    last = _FIRST + _FOR_EVER
    root = make_root(mesh="none", trust_domain="none.mesh", not_before=_FIRST, not_after=last)
    leaf = make_leaf(spiffe_id="spiffe://none.mesh/none", issuer=root, not_before=_FIRST, not_after=last)
    chain, roots = (encode_certificate(pair.certificate) for pair in (leaf, root))
    return Credentials(leaf_chain=chain, leaf_key=encode_key(leaf.key), roots=roots)


async def check_plans(envoy: str, proxies: Mapping[str, ProxyPlan]) -> dict[str, str]:
    """Envoy's words about the proxies whose configuration it would refuse, by node; ``envoy`` is its path."""
    return await check_resources(envoy, {node: translate(plan, make_stand_in()) for node, plan in proxies.items()})


async def check_resources(envoy: str, proxies: Mapping[str, Sequence[Translated]]) -> dict[str, str]:
    """The same for resources that have been translated.

    Raises:
        WaitTimeoutError: Envoy did not say anything within a minute.
    """
    places = asyncio.Semaphore(_AT_ONCE)
    with tempfile.TemporaryDirectory(prefix="meshctl-") as folder:

        async def check(number: int, node: str, resources: Sequence[Translated]) -> tuple[str, str]:
            async with places:
                path = Path(folder) / f"{number}.json"
                await asyncio.to_thread(path.write_text, build_static(node, resources))
                return node, await _run(envoy, path)

        rows = [check(number, node, resources) for number, (node, resources) in enumerate(sorted(proxies.items()))]
        found = await asyncio.gather(*rows)
    return {node: words for node, words in found if words}


async def _run(envoy: str, path: Path) -> str:
    """Empty when Envoy accepts a file, else its words."""
    process = await asyncio.create_subprocess_exec(
        *(envoy, "--mode", "validate", "--config-path", str(path), "--log-level", "error"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_TIMEOUT):
            _, said = await process.communicate()
    except TimeoutError:
        raise WaitTimeoutError("Envoy did not say whether it takes the configuration") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return "" if process.returncode == 0 else read_words(said.decode(errors="replace"))


def read_words(text: str) -> str:
    """What Envoy's log says without times, threads and source files; what it begins with when it says nothing."""
    lines = [_INITIALIZING.sub("", _LOG_PREFIX.sub("", line)) for line in text.splitlines()]
    lines = list(dict.fromkeys(line for line in lines if line.strip()))
    return "\n".join(lines) or "it gives no reason"
