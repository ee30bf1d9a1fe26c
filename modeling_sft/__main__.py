"""`python -m modeling_sft`: the command `sft`."""

import sys

from .cli import main

# Runs record their command: by the name that others can call, not by the place of this file.
sys.argv[0] = "sft"
sys.exit(main())
