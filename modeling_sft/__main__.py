"""`python -m modeling_sft`."""

import sys

from .command_line import main

sys.exit(main())
