"""`python -m modeling_sft`: the command `sft`."""

import sys

from .cli import main

sys.exit(main())
