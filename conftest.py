"""Which files pytest does not collect doctests from: those whose host is not installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("verl") else ["aepo/integrations/verl", "tests/integrations/verl_configuration.py"]
