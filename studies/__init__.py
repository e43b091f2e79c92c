"""Studies: what choices cost and what holds, on the demo's synthetic hospitals. ``make study``."""
