"""Publish a trained and evaluated model on the Hub."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """examples:
  python scripts/publish.py runs/digits --repo org/sft-digits --dry-run
  hf auth login; python scripts/publish.py runs/digits --repo org/sft-digits --private
The token is that of `hf auth login` or HF_TOKEN. After a broken connection run the same command again.
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Check a folder that scripts/train.py and scripts/evaluate.py wrote, write its model card "
        "(README.md) unless it has one, upload it in one commit, tag it, and compare what comes back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="model, processor, recipe, log and evaluation")
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="repository, created if it does not exist")
    parser.add_argument("--private", action="store_true", help="create a repository that only its owners see")
    parser.add_argument("--tag", default="v1", help="name of the release (default: %(default)s)")
    parser.add_argument("--license", default="apache-2.0", help="of weights and code (default: %(default)s)")
    parser.add_argument("--data-license", metavar="TEXT", help="of the training data, for the model card")
    parser.add_argument(
        "--benchmark", metavar="ORG/NAME:TASK", help="benchmark on the Hub to write a result for (.eval_results)"
    )
    parser.add_argument("--dry-run", action="store_true", help="check, write the card, list the files; no network")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    from huggingface_hub import HfApi
    from transformers.utils import logging

    import lab  # noqa: F401 (benchmark data sets and baselines by name)
    from modeling_sft.hub.folder_errors import FOLDER_ERRORS, error_line
    from modeling_sft.publishing import prepare, publish

    logging.disable_progress_bar()  # of loading; the upload keeps its own
    try:
        publication = prepare(
            arguments.folder, arguments.repo, arguments.license, arguments.data_license, arguments.benchmark
        )
        print(publication)
        if arguments.dry_run:
            print(f"dry run: nothing was uploaded. The model card is {arguments.folder / 'README.md'}")
            return 0
        result = publish(publication, arguments.repo, HfApi(), arguments.private, arguments.tag)
    except FOLDER_ERRORS as error:  # PublishingError is a RuntimeError
        print(error_line(error), file=sys.stderr)
        return 2
    print(f"published {arguments.repo} {arguments.tag} (commit {result.commit})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
