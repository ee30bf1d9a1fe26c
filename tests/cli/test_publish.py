"""`sft publish`: what is checked and listed without a network."""


def test_a_dry_run_writes_the_card_and_lists_the_files(run, trained):
    text = run("publish", trained, "--repo", "lab/tiny", "--dry-run")
    assert "model.safetensors" in text and f"nothing was uploaded. The model card is {trained / 'README.md'}" in text
    assert (trained / "README.md").read_text().startswith("---")


def test_a_folder_without_an_evaluation_is_refused(run, trained):
    (trained / "evaluation.json").unlink()
    assert "evaluation.json" in run("publish", trained, "--repo", "lab/tiny", "--dry-run")
    assert not (trained / "README.md").exists()
