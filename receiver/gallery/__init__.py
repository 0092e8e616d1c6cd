"""The gallery: server-rendered pages, one file a page, whole without JavaScript.

`page.py` is the base of all: session, CSRF, errors. Templates and static files stand beside.
"""
