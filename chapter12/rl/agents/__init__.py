"""Agents: things that act in an environment and learn from what follows."""

from .dqn import DQNAgent

__all__ = ["DQNAgent"]
