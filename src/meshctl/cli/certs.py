"""``meshctl certs``: the mesh's certificates: which there are, what one holds, rotation, verification."""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from meshctl.cli.complete import complete_services
from meshctl.cli.errors import FAILED
from meshctl.cli.options import PANEL_CHANGE, Output, OutputOption, example
from meshctl.cli.project import ask, find_project, make_screen
from meshctl.cli.wording import count_nouns, print_applied
from meshctl.errors import ConflictError, NotFoundError, UsageError

if TYPE_CHECKING:
    from meshctl.wire.models import Certificate, CertificateList


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        name="certs",
        help="See, rotate and verify the certificates of the mesh.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        epilog=example("meshctl certs list"),
    )
    group.command("list", epilog=example("meshctl certs list", "meshctl certs list -o json"))(list_certificates)
    group.command("show", epilog=example("meshctl certs show checkout", "meshctl certs show checkout --pem"))(
        show_certificate
    )
    group.command(epilog=example("meshctl certs rotate checkout", "meshctl certs rotate --root --yes"))(rotate)
    group.command(epilog=example("meshctl certs verify"))(verify)
    app.add_typer(group, rich_help_panel=PANEL_CHANGE)


def list_certificates(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List the roots and every service's certificate, with expiry and next rotation."""
    from meshctl.cli.render import Column, print_json, print_table, read_clock  # noqa: PLC0415 - rich loads on use
    from meshctl.wire.models import encode  # noqa: PLC0415

    screen = make_screen(ctx)
    found = ask(find_project(ctx), lambda client: client.certificates())
    if output is Output.JSON:
        print_json(encode(found))
        return
    now = read_clock()
    wide = output is Output.WIDE
    columns = [Column(title=title) for title in ("NAME", "KIND", "STATE")]
    columns += [Column(title="EXPIRES"), Column(title="ROTATES", drop=1), Column(title="IDENTITY", drop=2)]
    columns += [Column(title=title) for title in ("SERIAL", "ISSUER SERIAL") if wide]
    rows = []
    for certificate in sorted(found.certificates, key=lambda item: (item.kind != "root", item.name)):
        row = [
            certificate.name,
            certificate.kind,
            _state(certificate, now),
            in_words(certificate.not_after, now),
            in_words(certificate.rotates_at, now) if certificate.rotates_at is not None else "-",
            certificate.spiffe_id or "-",
        ]
        rows.append(row + ([certificate.serial, certificate.issuer_serial] if wide else []))
    print_table(screen.out, columns, rows)


def show_certificate(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            autocompletion=complete_services,
            show_default=False,
            help="A service, root, or a serial number.",
        ),
    ],
    output: OutputOption = Output.TABLE,
    *,
    pem: Annotated[bool, typer.Option("--pem", help="Print the PEM text, with that of its issuer.")] = False,
) -> None:
    """Show what one certificate holds: subject, identity, validity, key, chain. NAME is a service, root, or serial."""
    from meshctl.cli.certificate_text import describe_certificate  # noqa: PLC0415 - cryptography loads on use
    from meshctl.cli.render import print_json, print_line, read_clock  # noqa: PLC0415 - rich loads on use
    from meshctl.wire.models import encode  # noqa: PLC0415

    screen = make_screen(ctx)
    found = ask(find_project(ctx), lambda client: client.certificates())
    certificate = pick_certificate(found, name)
    if output is Output.JSON:
        print_json(encode(certificate))
        return
    chain = follow_chain(found, certificate)
    if pem:
        sys.stdout.write("".join(f"{link.pem.strip()}\n" for link in chain))
        return
    try:
        text = describe_certificate(certificate, chain=chain, now=read_clock())
    except ValueError as error:
        raise ConflictError(
            f"the certificate of {name} cannot be read: {error}", hint="`meshctl certs verify` says more"
        ) from None
    print_line(screen.out, text)


def rotate(
    ctx: typer.Context,
    service: Annotated[
        str,
        typer.Argument(
            metavar="[SERVICE]", autocompletion=complete_services, show_default=False, help="All when none is named."
        ),
    ] = "",
    output: OutputOption = Output.TABLE,
    *,
    root: Annotated[bool, typer.Option("--root", help="Make a new root and issue every certificate anew.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Issue certificates anew: of one service, or of all. Returns when the sidecars serve them.

    No connection is broken. With --root the new root is trusted everywhere before it signs anything, and the old one
    is dropped only when nothing uses it.
    """
    from meshctl.wire.models import RotateRequest  # noqa: PLC0415 - loaded when it is sent

    if root and service:
        raise UsageError("--root issues every certificate anew, so no service can be named", hint="leave one out")
    screen = make_screen(ctx)
    project = find_project(ctx)
    if root and not yes:
        _confirm("Rotate the root of the mesh and issue every certificate anew?")
    result = ask(project, lambda client: client.rotate(RotateRequest(service=service, root=root)))
    print_applied(screen, result, output=output)


def verify(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Check the files, the chains, and what each sidecar really serves. Exits with 1 when something is wrong."""
    from meshctl.cli.render import Column, print_json, print_table, style_state  # noqa: PLC0415 - rich loads on use
    from meshctl.wire.models import encode  # noqa: PLC0415

    screen = make_screen(ctx)
    report = ask(find_project(ctx), lambda client: client.verify_certificates())
    if output is Output.JSON:
        print_json(encode(report))
    else:
        rows = [(check.name, style_state("ok" if check.ok else "failed"), check.message) for check in report.checks]
        print_table(screen.out, [Column(title="CHECK"), Column(title="RESULT"), Column(title="MESSAGE")], rows)
        wrong = sum(not check.ok for check in report.checks)
        screen.say(f"{count_nouns(len(report.checks), 'check')}, {f'{wrong} failed' if wrong else 'all passed'}")
    if not report.ok:
        raise typer.Exit(FAILED)


def in_words(moment: float, now: float) -> str:
    """A time as people read it: ``in 23h12m``, ``3m10s ago``."""
    from meshctl.cli.render import format_age  # noqa: PLC0415 - rich loads on use

    return f"in {format_age(moment - now)}" if moment >= now else f"{format_age(now - moment)} ago"


def pick_certificate(found: CertificateList, name: str) -> Certificate:
    """The certificate of a name, of a serial or of the beginning of one; ``root`` is the root that signs.

    Raises NotFoundError, naming the nearest one.
    """
    for certificate in found.certificates:
        if name in (certificate.name, certificate.serial):
            return certificate
    starting = [item for item in found.certificates if len(name) >= 4 and item.serial.startswith(name)]
    if name == "root":
        starting = [item for item in found.certificates if item.kind == "root" and item.active]
    if len(starting) == 1:
        return starting[0]
    names = sorted(certificate.name for certificate in found.certificates)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names)}"
    raise NotFoundError(f"there is no certificate {name}", hint=hint)


def follow_chain(found: CertificateList, certificate: Certificate) -> list[Certificate]:
    """A certificate and its issuers, up to the root."""
    chain = [certificate]
    by_serial = {item.serial: item for item in found.certificates}
    while (issuer := by_serial.get(chain[-1].issuer_serial)) is not None and issuer not in chain:
        chain.append(issuer)
    return chain


def _state(certificate: Certificate, now: float) -> str:
    if now >= certificate.not_after:
        return "expired"
    if now < certificate.not_before:
        return "not yet valid"
    if certificate.kind == "root":
        return "signing" if certificate.active else "trusted"
    return "valid"


def _confirm(question: str) -> None:
    """Ask on a terminal; without one the answer has to be given as ``--yes``."""
    if not sys.stdin.isatty():
        raise UsageError("rotating the root wants a confirmation", hint="add --yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(FAILED)
