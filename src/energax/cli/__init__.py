"""The command line: `energax train | compare | reproduce | data`."""

from energax.cli.main import main as main
