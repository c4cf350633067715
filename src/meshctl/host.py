"""Composition root: the only module that names adapters, and the life of the daemon.  I/O.

The daemon is crash-only: it may be killed at any moment.  Services, sidecars and the keeper that owns them go on, and
the next daemon of the same folder takes over.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import signal
import ssl
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

from meshctl.adapters.ads_grpc import AdsServer
from meshctl.adapters.cert_files import FileAuthority
from meshctl.adapters.circuit_files import MappedCircuitFiles
from meshctl.adapters.clock import SystemClock
from meshctl.adapters.collector import Collector
from meshctl.adapters.envoy_admin import EnvoyAdmin
from meshctl.adapters.envoy_binary import find_envoy
from meshctl.adapters.envoy_validate import check_plans
from meshctl.adapters.log_files import read_logs
from meshctl.adapters.metrics_http import HttpMetricsServer
from meshctl.adapters.otlp_forward import HttpForwarder
from meshctl.adapters.port_claims import PortClaims
from meshctl.adapters.port_owner import explain_port, port_is_free
from meshctl.adapters.private_files import open_private_directory
from meshctl.adapters.process_meter import PsutilMeter
from meshctl.adapters.processes import KeeperHost
from meshctl.adapters.request_reports import ReportReceiver
from meshctl.adapters.sqlite_store import SqliteStore
from meshctl.ads.status import SyncStatus
from meshctl.api.server import serve
from meshctl.control.certs import CertRunner
from meshctl.control.control_plane import ControlPlane
from meshctl.control.engine import Engine
from meshctl.control.events import EventLog
from meshctl.control.exporter import Exporter, MetricsParts
from meshctl.control.health import HealthReader
from meshctl.control.identity import MeshIdentity
from meshctl.control.metrics import expose, running_sidecars
from meshctl.control.metrics_reader import MetricsReader
from meshctl.control.outliers import Outliers
from meshctl.control.parts import Parts
from meshctl.control.probes import run_probe
from meshctl.control.publisher import Publisher
from meshctl.control.rejections import Rejections
from meshctl.control.supervisor import Supervisor
from meshctl.control.topology import PortProbe, Topology
from meshctl.envoy.translate import Credentials
from meshctl.errors import ConflictError, EnvoyMissingError, MeshctlError, UsageError
from meshctl.identity.rotation import LEAF_LIFETIME
from meshctl.lifecycle.specs import Surroundings
from meshctl.spec.schema import Mesh
from meshctl.spec.values import parse_duration
from meshctl.wire.models import AppliedResult
from meshctl.wire.paths import MeshPaths, locate

_log = logging.getLogger("meshctl")

_PUBLISH_TIMEOUT = 10.0
_ROOTS_FALLBACK = "/etc/ssl/certs/ca-certificates.crt"

LEAF_LIFETIME_VARIABLE = "MESHCTL_LEAF_LIFETIME"
"""How long certificates of services are valid, for those who want to see them rotate."""

_SHORTEST_LEAF_LIFETIME = 10.0
# Certificates tell time in whole seconds, and a renewal takes its time: on a busy machine shorter ones would run out.


def run_daemon(directory: str, *, teardown: bool = False) -> int:
    """Run the control plane of a folder until the mesh is taken down; returns the exit code.

    With ``teardown`` nothing new is started: what an earlier daemon left running is stopped, and that is all.
    """
    paths = locate(directory, environ=os.environ, uid=os.getuid())
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        open_private_directory(Path(paths.state))
        open_private_directory(Path(paths.logs))
        _make_runtime_folders(Path(paths.runtime).parent, Path(paths.runtime))
        with _only_daemon(paths):
            asyncio.run(_run(paths, teardown=teardown))
    except MeshctlError as error:
        _log.error("%s%s", error.message, f" ({error.hint})" if error.hint else "")
        return 1
    return 0


async def _run(paths: MeshPaths, *, teardown: bool) -> None:
    ended = asyncio.Event()
    clock = SystemClock()
    # Before anything is started that would be left behind.
    envoy = _find_envoy(required=not teardown)
    leaf_lifetime = LEAF_LIFETIME if teardown else _read_leaf_lifetime(os.environ)
    store = SqliteStore(paths.database)
    events = EventLog(clock, store)
    if store.recovered:
        events.add("store.recovered", "store", store.recovered, "warning")
    engine = Engine()
    # Whatever fails on the way: what was opened is closed, in the opposite order.
    async with AsyncExitStack() as opened:
        opened.callback(store.close)
        keeper = KeeperHost(
            socket=paths.keeper_socket,
            state_dir=f"{paths.runtime}/processes",
            log_path=paths.log("keeper"),
            tag=paths.tag,
        )
        await keeper.open()
        # Not while it is being stopped: what is left then is for the next `down`, which finds it through the keeper.
        opened.push_async_callback(lambda: keeper.close(stop=engine.stopped))
        reports, rejections = ReportReceiver(), Rejections(events)

        def take_status(node: str, status: SyncStatus) -> None:
            rejections.take(node, status)
            engine.notify()

        ads = AdsServer(
            socket=paths.ads_socket,
            on_status=take_status,
            clock=clock,
            handlers=(reports.handlers(),),
        )
        await ads.start()
        opened.push_async_callback(ads.stop)
        collector = Collector(clock)
        await collector.open_pipe(paths.collector_socket)
        opened.push_async_callback(collector.close)
        parts = _make_parts(
            paths,
            engine,
            envoy=envoy,
            leaf_lifetime=leaf_lifetime,
            events=events,
            clock=clock,
            store=store,
            keeper=keeper,
            ads=ads,
        )
        engine.attach(parts)
        opened.push_async_callback(engine.close)
        circuit_files = MappedCircuitFiles()
        if not await keeper.running():
            circuit_files.clear(paths.runtime)
        plane = ControlPlane(
            engine,
            logs=read_logs,
            circuit_files=circuit_files,
            receiver=collector,
            make_forwarder=HttpForwarder,
            store=store,
            daemon_pid=os.getpid(),
            on_down=ended.set,
            check_envoy=lambda proxies: check_plans(envoy, proxies),
        )
        reports.take = plane.taps.take
        ads.lease = plane.faults.lease
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, ended.set)
        # Modules and message descriptors live as long as the daemon: looking through them for garbage again and
        # again would hold up a change of routes by tens of milliseconds.
        gc.freeze()
        await engine.start(teardown=teardown)
        if teardown:
            await plane.down(force=False)
        else:
            await plane.begin()
            engine.spawn("outliers", Outliers(engine).run())
            engine.spawn("tracing", plane.tracing.run())
            api = await serve(plane, paths.api_socket)
            opened.push_async_callback(api.close)
            await ended.wait()
    if engine.stopped:
        _remove_runtime(Path(paths.runtime))


def _make_parts(
    paths: MeshPaths,
    engine: Engine,
    *,
    envoy: str,
    leaf_lifetime: float,
    events: EventLog,
    clock: SystemClock,
    store: SqliteStore,
    keeper: KeeperHost,
    ads: AdsServer,
) -> Parts:
    admin = EnvoyAdmin()

    def credentials(node: str) -> Credentials:
        return engine.identity.credentials(node)

    def make_identity(mesh: Mesh) -> MeshIdentity:
        authority = FileAuthority(f"{paths.ca}/{mesh.trust_domain}", mesh=mesh.name, trust_domain=mesh.trust_domain)
        authority.ensure_root(clock.now())
        runner = CertRunner(
            authority=authority,
            clock=clock,
            services=lambda: engine.nodes,
            left_alone=lambda: engine.false_certificates(),  # noqa: PLW0108 - set later, by those who make faults
            publish=publish_certificates,
            report=events.add,
            wait=asyncio.sleep,
            served=lambda node: admin.get(paths.admin_socket(node), "/certs"),
            leaf_lifetime=leaf_lifetime,
        )
        return MeshIdentity(trust_domain=mesh.trust_domain, authority=authority, runner=runner)

    async def publish_certificates() -> AppliedResult:
        start = clock.monotonic()
        acked = await engine.publish_and_wait(_PUBLISH_TIMEOUT)
        duration = (clock.monotonic() - start) * 1000
        return AppliedResult(message="certificates", acked=acked, total=acked, duration_ms=duration)

    supervisor = Supervisor(
        host=keeper,
        probe=run_probe,
        clock=clock,
        drain=engine.drain,
        recall=store.instances,
        remember=store.put_instance,
        forget=store.drop_instance,
        report=events.add,
        changed=engine.instance_changed,
        wait=asyncio.sleep,
    )
    around = Surroundings(
        envoy=envoy,
        environment=dict(os.environ),
        fallback_path=str(Path(sys.executable).parent),
        bootstrap=paths.bootstrap,
        log=paths.log,
    )
    health = HealthReader(
        admin=admin, sidecars=engine.checks.sidecars, report=engine.checks.take, on_error=engine.report_bug
    )
    return Parts(
        paths=paths,
        host=keeper,
        admin=admin,
        topology=Topology(
            store, PortProbe(explain=explain_port, is_free=port_is_free, claims=PortClaims(paths.runtime))
        ),
        rollouts=store,
        publisher=Publisher(ads, credentials),
        supervisor=supervisor,
        make_identity=make_identity,
        health=health,
        metrics=MetricsParts(
            reader=MetricsReader(
                admin=admin,
                sidecars=lambda: running_sidecars(engine),
                known=lambda: engine.nodes,
                clock=clock,
                on_error=engine.report_bug,
                heard=health.hear,
            ),
            meter=PsutilMeter(),
            exporter=Exporter(
                server=HttpMetricsServer(),
                mesh=lambda: engine.mesh,
                expose=lambda accept: expose(engine, accept),
                events=events,
            ),
        ),
        events=events,
        clock=clock,
        around=around,
        system_roots=ssl.get_default_verify_paths().cafile or _ROOTS_FALLBACK,
        sync=ads.status,
        retry_rejected=ads.retry_rejected,
    )


def _find_envoy(*, required: bool) -> str:
    """The path of Envoy; empty when there is none and none is required, as to stop what runs.

    Raises EnvoyMissingError.
    """
    try:
        return find_envoy(os.environ).path
    except EnvoyMissingError:
        if required:
            raise
        return ""


def _make_runtime_folders(*folders: Path) -> None:
    """Make folders that nobody else can read, in a place where everybody may make some.

    Raises ConflictError for one that somebody else made, or a link: it could lead anywhere, and elsewhere tomorrow.
    """
    for folder in folders:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        hint = f"remove it, or set XDG_RUNTIME_DIR to a folder of yours: {folder}"
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise ConflictError(f"{folder} is no folder that can be used: {error.strerror}", hint=hint) from error
        try:
            found = os.fstat(descriptor)
            if found.st_uid != os.geteuid():
                raise ConflictError(f"{folder} belongs to user {found.st_uid}", hint=hint)
            if stat.S_IMODE(found.st_mode) != 0o700:
                os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)


@contextmanager
def _only_daemon(paths: MeshPaths) -> Iterator[None]:
    """Hold the folder's lock, which the kernel lets go of however the daemon ends."""
    descriptor = os.open(f"{paths.state}/daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConflictError("another control plane runs for this folder") from error
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _read_leaf_lifetime(environ: Mapping[str, str]) -> float:
    """Seconds that a service's certificate is valid: ``MESHCTL_LEAF_LIFETIME``, else 24 hours. Raises UsageError."""
    text = environ.get(LEAF_LIFETIME_VARIABLE, "")
    if not text:
        return LEAF_LIFETIME
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{LEAF_LIFETIME_VARIABLE} is {text!r}: {error}", hint="write a duration such as 1h") from None
    if seconds < _SHORTEST_LEAF_LIFETIME:
        raise UsageError(f"{LEAF_LIFETIME_VARIABLE} is {text}: at least {_SHORTEST_LEAF_LIFETIME:g}s are needed")
    return seconds


def _remove_runtime(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
    with suppress(OSError):
        folder.rmdir()
