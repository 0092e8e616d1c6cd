"""The command line: `main.py` lists the commands, and each command is a file named like it.

`entry.py` is what starts: it runs `serve` and `work` without Typer, through `run`, and all others with it.

Shared by them: `console` (text, tables, JSON, progress, exit codes), `connection` (the client), `options`,
`query_args` and `batch_input` (what is parsed), `bulk` (change many, ask first), `completion` (the Tab key),
`save_images` (downloads) and `watch` (`jobs --watch`).
"""
