"""`sft publish`: publish a trained and evaluated model on the Hub."""

import argparse
from pathlib import Path

SUMMARY = "publish a trained and evaluated model on the Hub"
DESCRIPTION = (
    "Check a folder that `sft train` and `sft evaluate --save` wrote, write its model card (README.md) unless it has "
    "one, upload it with the code of model and processor in one commit, tag it, and compare what comes back."
)
EPILOG = """examples:
  sft publish runs/digits --repo org/sft-digits --dry-run
  hf auth login; sft publish runs/digits --repo org/sft-digits --private
The token is that of `hf auth login` or HF_TOKEN. After a broken connection run the same command again.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
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


def run(arguments: argparse.Namespace) -> int:
    """Check the folder and list its files; then upload them, unless it is a dry run."""
    from huggingface_hub import HfApi

    from ..publishing import prepare, publish

    publication = prepare(
        arguments.folder, arguments.repo, arguments.license, arguments.data_license, arguments.benchmark
    )
    print(publication)
    if arguments.dry_run:
        print(f"dry run: nothing was uploaded. The model card is {arguments.folder / 'README.md'}")
        return 0
    result = publish(publication, arguments.repo, HfApi(), arguments.private, arguments.tag)
    print(f"published {arguments.repo} {arguments.tag} (commit {result.commit})")
    return 0
