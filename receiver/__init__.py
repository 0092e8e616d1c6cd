"""What the service does: submit, receive, download, answer."""
