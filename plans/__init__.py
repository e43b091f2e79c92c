"""The plans that come with fedcore, one YAML file a disease."""
