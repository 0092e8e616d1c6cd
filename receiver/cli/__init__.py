"""The command line: `commands.py` lists the commands, and each is a file named like it.

`main.py` is what starts: it runs `serve` and `work` without Typer, through `run`, and all others with it.

Shared by them: `console` (text, tables, JSON, progress, exit codes), `connection` (the client), `options`,
`query_args` and `batch_input` (what is parsed), `bulk` (change many, ask first), `completion` (the Tab key),
`save_images` (downloads) and `watch` (`jobs --watch`).
"""
