"""`darkroom demo`: a real S3 server, the sandbox and the service, started together on loopback."""
