"""What is remembered: the ledger of jobs and the archive of images."""
