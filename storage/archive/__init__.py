"""The archive: images and records in an S3 bucket, written create-only and proven by digest."""
