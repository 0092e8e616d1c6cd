"""The hosted image gateways, one adapter a file, no I/O in any of them."""
