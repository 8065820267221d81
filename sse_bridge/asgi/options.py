"""Checks of what a bridge is made with. They say what would do.

Each raises `ConfigurationError`.
"""

from __future__ import annotations

from ..errors import ConfigurationError
from ..flow.pace import TokenBucket
from ..flow.policy import Block, Coalesce, Drop, Policy

__all__ = ["a_policy", "a_rate", "not_negative", "positive", "whole"]


def positive(**limits: float | None) -> None:
    for name, value in limits.items():
        if value is not None and not value > 0:
            raise ConfigurationError(f"{name} must be above zero, or None for no limit, not {value}.")


def whole(**limits: float | None) -> None:
    for name, value in limits.items():
        if value is not None and not isinstance(value, int):
            raise ConfigurationError(f"{name} must be a whole number, not {value!r}.")


def a_policy(policy: object) -> Policy:
    if not isinstance(policy, Block | Drop | Coalesce):
        raise ConfigurationError(
            f"policy must be Block(), Drop(), Coalesce(), or a function that returns one, not {policy!r}."
        )
    return policy


def a_rate(rate: object) -> TokenBucket | None:
    if rate is not None and not isinstance(rate, TokenBucket):
        raise ConfigurationError(f"rate must be a TokenBucket, None, or a function that returns one, not {rate!r}.")
    return rate


def not_negative(**limits: float | None) -> None:
    for name, value in limits.items():
        if value is not None and not value >= 0:
            raise ConfigurationError(f"{name} must not be negative, not {value}.")
