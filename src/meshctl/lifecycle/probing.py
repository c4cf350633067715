"""The rhythm of one probe: when it is due, and what its answers add up to.  Pure."""

from __future__ import annotations

from dataclasses import replace

from meshctl.lifecycle.model import FIRST_PROBE_DELAY, IDLE, PROBE_DELAY_GROWTH, ProbeTrack
from meshctl.spec.schema import Probe


def begin(probe: Probe, now: float, *, since: float) -> ProbeTrack:
    """A probe that begins now: due at once, or when its initial delay after ``since`` has passed."""
    return ProbeTrack(due=max(now, since + probe.initial_delay), delay=min(FIRST_PROBE_DELAY, probe.interval))


def ask(track: ProbeTrack) -> ProbeTrack:
    """A probe that runs now."""
    return replace(track, due=None, running=True)


def note(track: ProbeTrack, ok: bool, probe: Probe, now: float, *, fast: bool) -> ProbeTrack:  # noqa: FBT001 - the answer
    """A probe after an answer; ``fast`` while the instance starts: soon again, then slower and slower."""
    return ProbeTrack(
        due=now + (track.delay if fast else probe.interval),
        passed=track.passed + 1 if ok else 0,
        failed=0 if ok else track.failed + 1,
        delay=min(track.delay * PROBE_DELAY_GROWTH, probe.interval) if fast else track.delay,
    )


def refresh(track: ProbeTrack, probe: Probe | None, now: float) -> ProbeTrack:
    """A probe after its spec changed: gone, begun, or due no later than its new rhythm says."""
    if probe is None:
        # One that runs is still waited for: were the probe to come back now, two would run at once.
        return ProbeTrack(running=track.running)
    if track == IDLE:
        return begin(probe, now, since=now)
    if track.due is None:
        return track
    return replace(track, due=min(track.due, now + probe.interval))
