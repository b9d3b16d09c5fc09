"""Reinforcement learning with vector rewards: the reward matrix stays a matrix until the loss."""
