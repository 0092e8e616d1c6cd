"""The commands of `darkroom`, a module for each part of the work."""
