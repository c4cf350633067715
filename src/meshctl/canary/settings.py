"""Settings of a rollout: made of what a topology says, and refused when they make no sense.  Pure."""

from __future__ import annotations

from dataclasses import fields

from meshctl.canary.model import Settings
from meshctl.errors import UsageError
from meshctl.spec.rollout_rules import find_mistakes
from meshctl.spec.rollout_schema import RolloutRules


def settings_of(rules: RolloutRules) -> Settings:
    """The settings that a topology gives to the rollouts of a service."""
    return Settings(**{field.name: getattr(rules, field.name) for field in fields(Settings)})


def check_settings(settings: Settings) -> None:
    """Raise UsageError for the first of the mistakes in some settings."""
    for _, message, hint in find_mistakes(settings):
        raise UsageError(message, hint=hint)
