"""What must hold between the rollouts of a service and its versions.  Pure."""

from __future__ import annotations

from meshctl.spec.report import Report, quote
from meshctl.spec.schema import Service
from meshctl.spec.source import MapNode
from meshctl.spec.tree import key_place


def check_rollout(service: Service, root: MapNode, report: Report) -> None:
    """Report rollouts of versions that cannot be rolled out."""
    rollout = service.rollout
    if rollout is None:
        return
    name = service.name
    place = key_place(root, "services", name, "rollout")
    if service.protocol == "tcp" or service.is_job:
        reason = "is a job, which takes no calls" if service.is_job else "speaks plain TCP, where no request is seen"
        report.add("conflicting-keys", f"{quote(name)} {reason}: it cannot be rolled out", place, "remove `rollout`")
        return
    if not rollout.version:
        return
    where = key_place(root, "services", name, "rollout", "version")
    versions = service.versions
    others = ", ".join(version for version in versions if version != service.stable)
    if rollout.version not in versions:
        message = f"`rollout` names {quote(rollout.version)}, which is no version of {quote(name)}"
        known = ", ".join(versions) or "none; write them under `versions`"
        report.add("unknown-version", message + report.suggest(rollout.version, versions), where, f"versions: {known}")
    elif rollout.version == service.stable:
        message = f"`rollout` names {quote(rollout.version)}, which is the stable version of {quote(name)}"
        hint = f"name the version to roll out: {others}" if others else "add the version to roll out to `versions`"
        report.add("bad-rollout", message, where, f"{hint}; or remove `version` until there is a newer one")
