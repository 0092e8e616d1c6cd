"""The search language: parse `kite seed:7 -cartoon since:7d` into a filter. No I/O."""
