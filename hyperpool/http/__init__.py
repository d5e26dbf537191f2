"""What the pooler shows over HTTP: metrics, health, and whatever else adds its routes to the `Site`."""
