"""The command line: `energax train | compare | data`."""

from energax.cli.main import main as main
