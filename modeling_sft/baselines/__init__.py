"""Models of other authors that recipes can train in place of SFT, for comparison by the same script."""
