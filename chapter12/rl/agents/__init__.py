from .dqn import DQNAgent as DQNAgent
