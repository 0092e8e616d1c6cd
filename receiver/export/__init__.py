"""Export what a search finds: tables (CSV, JSON Lines, Parquet) and bundles of images (ZIP, BagIt)."""
