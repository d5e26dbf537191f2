"""Tunnels' far ends: who is let in over a WebSocket, and what is forwarded to where."""
