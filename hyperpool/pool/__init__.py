"""Pools: their policy (sans-IO), opening server connections, and the warmer that keeps pools filled."""
